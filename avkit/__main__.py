"""`python -m avkit` is the `avkit` command."""

import sys

from avkit.cli import main

sys.exit(main())
