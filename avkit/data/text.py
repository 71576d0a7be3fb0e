"""What the synthetic talkers say: GRID-style commands and free sentences, each belonging to one split for ever.

The word lists and patterns are our own. GRID's grammar (Cooke et al., 2006) is verb, colour, preposition, letter, digit,
adverb. A sentence's split follows from a hash of its words alone, so no seed ever moves a test sentence to training.
"""

import hashlib
import re
from functools import lru_cache

import numpy as np

SPLITS = ("tr", "cv", "tt")

GRID = (
    ("bin", "lay", "place", "set"),
    ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"),
    tuple("abcdefghijklmnopqrstuvxyz"),
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("again", "now", "please", "soon"),
)

WORDS = {
    "who": "my brother|the baker|our teacher|a farmer|the pilot|her mother|the painter|his friend|a doctor|the miller|"
    "our captain|my father|a fisherman|the manager|every visitor|the shepherd|somebody|the whole family|a young poet|"
    "the watchmaker|your neighbour|a woman|the boy upstairs|everyone|nobody",
    "did": "bought|moved|found|brought|painted|washed|followed|promised|believed|made|wanted|carried|measured|opened|"
    "forgot|borrowed|noticed|polished|sharpened|wrapped|shook|threw|chose|lifted|imagined",
    "does": "loves|keeps|wears|paints|fixes|builds|watches|brings|needs|buys|shows|hides|washes|moves|remembers",
    "how": "big|small|warm|pale|heavy|broken|yellow|purple|famous|simple|smooth|rough|empty|wooden|shiny|awful|lovely|"
    "thick|cheap|frozen|modern|brown|foolish|perfect|bitter",
    "what": "boat|apple|map|window|bottle|shirt|fish|bamboo shelf|wheel|photo|violin|lamp|pepper|mushroom|book|camera|"
    "puppet|jumper|engine|feather|bicycle|piano|river stone|pillow|umbrella|wagon|cherry|mirror|coffee cup|telephone",
    "where": "from the shop|by the river|in the village|above the fireplace|near the theatre|behind the barn|"
    "on the beach|at the farm|under the bridge|before the storm|beside the path|for the museum|along the wharf|"
    "through the forest|over the fence|without a map|among the flowers|in the front room",
    "when": "this morning|every Monday|before breakfast|on Friday|after the show|last February|at five|once more|"
    "in the evening|all summer|by chance|for a while|two weeks ago|most of the time|far too soon",
    "may": "might|could|should|would|must|may",
    "verb": "move|buy|fix|show|bring|watch|open|finish|choose|paint|follow|measure|remember|borrow|ship|throw|mix|save",
    "I": "I|we|you|they",
    "feel": "hope|believe|fear|suppose|think|imagine|promise|know",
}
PATTERNS = (
    "{who} {did} the {how} {what}",
    "{who} {did} a {what} {where}",
    "{who} {does} the {what} {when}",
    "{I} {may} {verb} the {how} {what}",
    "{I} {feel} {who} {did} it {where}",
    "the {how} {what} was {where}",
    "{when} {who} {did} my {what}",
    "please {verb} that {what} {where}",
    "why did {who} {verb} the {what}",
    "every {how} {what} is {where} {when}",
)
_LISTS = {kind: tuple(words.split("|")) for kind, words in WORDS.items()}


@lru_cache(maxsize=1 << 16)
def split_of(name: str) -> str:
    """The split, 'tr', 'cv' or 'tt', that a sentence (or any other name) belongs to: about 80, 10 and 10 per cent.

    Only the name's characters decide, through SHA-256, so it is the same for every seed, machine and version.
    """
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
    return "tr" if share < 0.8 else "cv" if share < 0.9 else "tt"


def grid_sentence(rng: np.random.Generator) -> str:
    """One of GRID's 64,000 six-word commands, e.g. 'place red by j six now'."""
    return " ".join(words[rng.integers(len(words))] for words in GRID)


def free_sentence(rng: np.random.Generator) -> str:
    """A short sentence from our own patterns and word lists, e.g. 'my brother painted a boat by the river'."""
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    for kind, words in _LISTS.items():
        pattern = pattern.replace("{" + kind + "}", words[rng.integers(len(words))])
    return re.sub(r"\ba (?=[aeiou])", "an ", pattern)


def sentence(rng: np.random.Generator, split: str, grid_share: float = 0.4) -> str:
    """A sentence that belongs to `split`: a GRID command with probability `grid_share`, else a free sentence."""
    draw = grid_sentence if rng.random() < grid_share else free_sentence
    while True:
        text = draw(rng)
        if split_of(text) == split:
            return text
