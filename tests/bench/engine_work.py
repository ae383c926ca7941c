"""What the engines are asked: so many chat requests at once, of equal or of mixed lengths."""

from tests.bench.engine_peers import Work

WORKLOADS = ("1", "4", "8", "16", "32", "32 mixed")
QUICK_WORKLOADS = ("8", "32")
NEW_TOKENS = 64
FEWEST_WORDS = 40
"""Makes prompts of 90 to 113 tokens with the chat template."""
MIXED_NEW_TOKENS = (8, 128, 32, 96, 64, 24, 112, 48)
MIXED_WORDS = (2, 340, 20, 120, 60, 250, 180)
"""Prompts of 52 to 390 tokens; as many of them as of the answers would pair the same ones."""
WORDS = (
    "harbour",
    "window",
    "engine",
    "river",
    "lantern",
    "market",
    "copper",
    "winter",
    "garden",
    "bridge",
    "letter",
    "violin",
)


def work_of(workload: str, number: int) -> Work:
    """ "8": so many answers of equal length; "32 mixed": of many lengths, prompts too. No prompt of
    one round is one of another, so that a prefix cache finds no more than what all prompts share.
    """
    count, _, mixed = workload.partition(" ")
    streams = int(count)
    begin = 1000 * (1 + number) + 100 * WORKLOADS.index(workload)
    numbers = range(begin, begin + streams)
    if not mixed:
        texts = tuple(text(n, FEWEST_WORDS + n * 5 % 24) for n in numbers)
        return Work(texts, (NEW_TOKENS,) * streams)
    texts = tuple(text(n, MIXED_WORDS[n % len(MIXED_WORDS)]) for n in numbers)
    return Work(texts, tuple(MIXED_NEW_TOKENS[n % len(MIXED_NEW_TOKENS)] for n in numbers))


def text(number: int, words: int) -> str:
    """A chat message that differs from its first words on and asks for a long answer."""
    return f"Story {number}: tell it at length, and give each of these its place: " + " ".join(
        WORDS[(number + step * (1 + number % 7)) % len(WORDS)] for step in range(words)
    )
