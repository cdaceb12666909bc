"""What a pruning run may remove: whole blocks, or the halves of blocks, and their names.

An item is a block, as its original index (``7``), or one of its halves, as ``7.attention`` or
``7.mlp``. Names only; ``decoder.sublayers`` finds what they stand for in a model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from phaseprune.errors import UserError, near_matches

#: The halves of a block, in the order in which they run.
HALVES = ("attention", "mlp")
#: What are candidates, by what ``--granularity`` is called; whole blocks have no halves.
GRANULARITIES = {"block": (), "attention": ("attention",), "mlp": ("mlp",), "sublayer": HALVES}
#: What the candidates of a granularity are called, in the plural.
NOUNS = {
    "block": "blocks",
    "attention": "attention halves",
    "mlp": "MLP halves",
    "sublayer": "halves",
}

Item = int | str


def check_granularity(name: str) -> None:
    """Refuse an unknown granularity."""
    if name not in GRANULARITIES:
        raise UserError(
            f"--granularity is {name!r} and must be one of {', '.join(GRANULARITIES)}."
            + near_matches(name, GRANULARITIES)
        )


def all_items(granularity: str, blocks: int) -> list[Item]:
    """The candidates of a granularity, in the order in which they run."""
    if granularity == "block":
        return list(range(blocks))
    return [f"{block}.{half}" for block in range(blocks) for half in GRANULARITIES[granularity]]


def block_of_item(item: Item) -> int:
    """The original index of the block that an item is, or is a half of."""
    return item if isinstance(item, int) else int(item.partition(".")[0])


def half_of_item(item: Item) -> str | None:
    """Which half an item is; None of a whole block."""
    return None if isinstance(item, int) else item.partition(".")[2]


def whole_blocks(items: Iterable[Item]) -> list[int]:
    """The blocks of which nothing is left without these items, in order."""
    items = set(items)
    blocks = {block_of_item(item) for item in items}
    return sorted(
        block
        for block in blocks
        if block in items or all(f"{block}.{half}" in items for half in HALVES)
    )


def lone_halves(items: Sequence[Item]) -> list[str]:
    """The halves among the items whose block is not wholly removed, in the order given."""
    gone = set(whole_blocks(items))
    return [i for i in items if half_of_item(i) is not None and block_of_item(i) not in gone]


def item_in_words(item: Item) -> str:
    """``block 7``, ``attention 7`` or ``MLP 7``."""
    kind = {None: "block", "attention": "attention", "mlp": "MLP"}[half_of_item(item)]
    return f"{kind} {block_of_item(item)}"


def short_item(item: Item) -> str:
    """For where there is little room: ``7``, ``7a``, ``7m``."""
    return f"{block_of_item(item)}{(half_of_item(item) or '')[:1]}"


def parse_item(text: str, option: str = "--remove") -> Item:
    """The item that a word names: ``7``, ``7.attention``, ``7.mlp``.

    Raises:
        UserError: it names none.
    """
    block, dot, half = text.partition(".")
    if not block.isdecimal() or (dot and half not in HALVES):
        raise UserError(
            f"{option} {text!r} must be block indices or halves of blocks, as 20,26,7.attention"
        )
    return text if dot else int(block)


def item_list(text: str, option: str = "--remove") -> list[Item]:
    """The items that an option names, as ``20,26,7.attention``.

    Raises:
        UserError: a word names none.
    """
    return [parse_item(part, option) for part in text.replace(" ", ",").split(",") if part]


def check_items(items: Collection[Item], blocks: int) -> None:
    """Refuse halves to remove that do not exist, that stand twice, or that leave nothing.

    Raises:
        UserError: says which.
    """
    wrong = [item for item in items if not 0 <= block_of_item(item) < blocks]
    if wrong:
        raise UserError(
            f"{item_in_words(wrong[0])} does not exist: the model has blocks 0 to {blocks - 1}"
        )
    within = [i for i in items if half_of_item(i) and block_of_item(i) in items]
    if len(set(items)) < len(items) or within:
        twice = f", as {within[0]} is a half of another" if within else ""
        raise UserError(
            f"what is to be removed names something twice{twice}: {', '.join(map(str, items))}"
        )
    if len(whole_blocks(items)) >= blocks:
        raise UserError(f"all {blocks} blocks would be removed; at least a half must stay")
