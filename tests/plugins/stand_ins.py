"""Small stand-ins for the cloud's two models, so that pairs are kept without training."""

from __future__ import annotations

from strategy.augmentation import Reply


class Generator:
    """Answers with the example's words in another order."""

    identity = "stand-in writer"

    def write(self, prompts, seeds, on_done):
        on_done(len(prompts))
        replies = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            source = prompt.split("Input: [")[1].split("]")[0]
            words = source.split()[::-1]
            replies.append(Reply(f"Input: [{' '.join(words)} {seed % 7}], Response: [new]", 9))
        return replies


class NliScorer:
    """Finds that everything follows from everything."""

    identity = "stand-in judge"

    def cut(self, pairs):
        return sum(len(first) > 50 for first, _ in pairs)

    def both_ways(self, pairs):
        return [(0.9, 0.9)] * len(pairs)
