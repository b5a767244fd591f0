"""What texts say of who wrote them: a user's group, and which shares are of one user.

Both attacks see texts alone, as whoever reads what was shared or what the cloud wrote would; pure
functions, one document per user. Words are weighted by TF-IDF.

A group is the simulator's own knowledge. Where a record's response is a label it is the user's most
frequent one; in the miniature world's other tasks it is the register that a user's favourite words
are mostly of. Other data states none, and nothing is guessed there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from conf.schema import Config
from lamp import world
from lamp.records import UserHistory
from lamp.tasks import Task

FEWEST_GROUPS = 2


def group_of(history: UserHistory, task: Task, config: Config) -> str | None:
    """The group of a user; None where the data states none."""
    if task.pair_labels:
        counted = Counter(pair.response for pair in history.pairs)
        return max(sorted(counted), key=counted.__getitem__) if counted else None
    if config.data != "miniature":
        return None
    return world.register(task.name, history.user_id, config.world)


def guessed_groups(
    known: Sequence[tuple[str, str]], asked: Mapping[str, str]
) -> tuple[dict[str, str], str]:
    """Guess each user's group from a document, by logistic regression on public users.

    Args:
        known: Public users' documents with their groups.
        asked: Documents of the users under attack; who has none is not guessed.

    Returns:
        The guesses, and the most frequent group of the public users: what needs no text at all.
        No guesses where the public users are of fewer than two groups.
    """
    counted = Counter(group for _, group in known)
    if not counted:
        return {}, ""
    majority = max(sorted(counted), key=counted.__getitem__)
    users = [user for user, text in asked.items() if text.split()]
    if len(counted) < FEWEST_GROUPS or not users:
        return {}, majority
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    weights = TfidfVectorizer(token_pattern=r"\S+", sublinear_tf=True)
    features = weights.fit_transform([text for text, _ in known])
    model = LogisticRegression(C=10.0, max_iter=1000).fit(features, [group for _, group in known])
    found = model.predict(weights.transform([asked[user] for user in users]))
    return dict(zip(users, map(str, found), strict=True)), majority


def linked(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, float]:
    """Per user whether the first document is nearest to the user's own second one.

    Args:
        first: One document per user.
        second: Another document per user; only users with words in both take part.

    Returns:
        1 where the own document is the nearest by cosine, 0 where another is; of t that are
        equally near, the own among them, 1 / t. Chance is 1 / users. Nothing for fewer than two.
    """
    users = [user for user in first if first[user].split() and second.get(user, "").split()]
    if len(users) < 2:
        return {}
    from sklearn.feature_extraction.text import TfidfVectorizer

    weights = TfidfVectorizer(token_pattern=r"\S+", sublinear_tf=True)
    weights.fit([*(first[user] for user in users), *(second[user] for user in users)])
    one, other = (weights.transform([each[user] for user in users]) for each in (first, second))
    likeness = np.round((one @ other.T).toarray(), 9)  # equal documents may differ by rounding
    best = likeness == likeness.max(axis=1, keepdims=True)
    hit = best.diagonal() / best.sum(axis=1)
    return {user: float(value) for user, value in zip(users, hit, strict=True)}
