"""The ledger of both papers' numbers: what the paper says, what the official code gives, what is measured here, and how.

`ledger.yaml` holds what was published, `rows` makes the rows from it, `exact` recomputes those that need no data,
`command` is `avkit reproduce`.
"""
