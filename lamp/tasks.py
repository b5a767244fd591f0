"""LaMP's six tasks and dialogue: what a query asks, and how an item becomes a training pair.

A query is LaMP's own prompt, instruction included; a pair is trained with the same wording, so that
a device learns from D_u exactly what it is asked later. LaMP-1 and LaMP-7 cannot do that: their
profile items are papers and tweets, not choices and paraphrases (docs/assumptions.md).

:func:`register` adds a task, also from a file of the user's own (``plugins=[my_task.py]``,
docs/own-data.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from conf import groups
from conf.errors import ConfigError, DataError
from conf.names import suggestion
from conf.schema import TaskConfig
from lamp.records import Pair, ProfileItem, Prompt, Query

SLOT = "{x}"  # where the pair's input stands in a prompt

MOVIE_TAGS = (
    "sci-fi",
    "based on a book",
    "comedy",
    "action",
    "twist ending",
    "dystopia",
    "dark comedy",
    "classic",
    "psychology",
    "fantasy",
    "romance",
    "thought-provoking",
    "social commentary",
    "violence",
    "true story",
)
STARS = ("1", "2", "3", "4", "5")


@dataclass(frozen=True, slots=True)
class Wording:
    """How records of one task stand in a prompt.

    Attributes:
        item: One record; its profile fields stand in braces.
        long: The field that is cut to fit.
        lead: What stands between the records and the query.
        after_text: Put the records behind the query's text instead, as further titles.
        options: Search for the titles to choose from, not for the query's text.
    """

    item: str
    long: str
    lead: str = ". "
    after_text: bool = False
    options: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task: names, answers, the form of its queries and of its pairs.

    Attributes:
        name: Name in the configuration, e.g. "lamp_4".
        official: Name in LaMP's files, e.g. "LaMP_4".
        title: Name in tables and plots.
        kind: What is scored: a label, a number of stars, or a text.
        labels: The answers of a query, in LaMP's order; empty for texts.
        folder: Folder of the official files.
        input_field: Profile field that is a pair's input x.
        response_field: Profile field that is a pair's response y; "" where an item is x alone.
        pair_labels: What a pair's response must be one of; empty where it is free text.
        long_responses: Whether a pair's response may have several lines.
        pair_prompt: Prompt that a pair is trained with; ``{x}`` stands for its input.
        query_before: What stands before the text x in a query; "" where the query is x alone.
        query_after: What stands after it; "" where the text ends the query.
        retrieval: How its records stand in a prompt of the methods with RAG; None gives LaMP's
            common form.
        oppu: Folder of its files in OPPU's processed data; "" where these have none.
        dialogues: Whether its records come from files of dialogues, not from official files.
    """

    name: str
    official: str
    title: str
    kind: Literal["classification", "rating", "text"]
    labels: tuple[str, ...] = ()
    folder: str
    input_field: str
    response_field: str
    pair_labels: tuple[str, ...] = ()
    long_responses: bool = False
    pair_prompt: str
    query_before: str
    query_after: str = ""
    retrieval: Wording | None = None
    oppu: str = ""
    dialogues: bool = False

    @property
    def wording(self) -> Wording:
        """How its records stand in a prompt of the methods with RAG."""
        y, x = self.response_field, self.input_field
        return self.retrieval or Wording(f'"{{{y}}}" is the {y} for "{{{x}}}"', x)

    @property
    def asks_as_trained(self) -> bool:
        """Whether a record can be asked as a query is: both have the same wording."""
        return bool(self.query_before) and self.query_before in self.pair_prompt

    @property
    def fields(self) -> tuple[str, ...]:
        """Text fields that every profile item must have."""
        return tuple(field for field in (self.input_field, self.response_field) if field)


_PATTERNS = ". Following the given patterns "
_ABSTRACT_PROMPT = "Generate a title for the following abstract of a paper: "
_MOVIE_PROMPT = (
    "Which tag does this movie relate to among the following tags? Just answer with the tag name "
    f"without further explanation. tags: [{', '.join(MOVIE_TAGS)}] description: "
)
_REVIEW_PROMPT = (
    "What is the score of the following review on a scale of 1 to 5? just answer with 1, 2, 3, 4, "
    "or 5 without further explanation. review: "
)
_ARTICLE_PROMPT = "Generate a headline for the following article: "

TASKS: dict[str, Task] = {  # in the order of registration; register() adds to it
    "lamp_1": Task(
        name="lamp_1",
        official="LaMP_1",
        title="LaMP-1 citation choice",
        kind="classification",
        labels=("[1]", "[2]"),
        folder="LaMP_1",
        oppu="citation",
        input_field="abstract",
        response_field="title",
        pair_prompt=_ABSTRACT_PROMPT + SLOT,
        query_before='written the paper with the title "',
        query_after='", which reference is related?',
        retrieval=Wording('"{title}"', "title", after_text=True, options=True),
    ),
    "lamp_2": Task(
        name="lamp_2",
        official="LaMP_2",
        title="LaMP-2 movie tagging",
        kind="classification",
        labels=MOVIE_TAGS,
        folder="LaMP_2/new",
        oppu="movie_tagging",
        input_field="description",
        response_field="tag",
        pair_labels=MOVIE_TAGS,
        pair_prompt=_MOVIE_PROMPT + SLOT,
        query_before="] description: ",
        retrieval=Wording('the tag for the movie: "{description}" is "{tag}"', "description"),
    ),
    "lamp_3": Task(
        name="lamp_3",
        official="LaMP_3",
        title="LaMP-3 product rating",
        kind="rating",
        labels=STARS,
        folder="LaMP_3",
        oppu="product_rating",
        input_field="text",
        response_field="score",
        pair_labels=STARS,
        pair_prompt=_REVIEW_PROMPT + SLOT,
        query_before="without further explanation. review: ",
        retrieval=Wording('{score} is the score for "{text}"', "text"),
    ),
    "lamp_4": Task(
        name="lamp_4",
        official="LaMP_4",
        title="LaMP-4 news headline",
        kind="text",
        folder="LaMP_4",
        oppu="news_headline",
        input_field="text",
        response_field="title",
        pair_prompt=_ARTICLE_PROMPT + SLOT,
        query_before=_ARTICLE_PROMPT,
        retrieval=Wording('"{title}" is the title for "{text}"', "text"),
    ),
    "lamp_5": Task(
        name="lamp_5",
        official="LaMP_5",
        title="LaMP-5 scholarly title",
        kind="text",
        folder="LaMP_5",
        oppu="scholarly_title",
        input_field="abstract",
        response_field="title",
        pair_prompt=_ABSTRACT_PROMPT + SLOT,
        query_before=_ABSTRACT_PROMPT,
        retrieval=Wording('"{title}" is the title for "{abstract}"', "abstract", _PATTERNS),
    ),
    "lamp_7": Task(
        name="lamp_7",
        official="LaMP_7",
        title="LaMP-7 tweet paraphrase",
        kind="text",
        folder="LaMP_7",
        oppu="tweet_paraphrase",
        input_field="text",
        response_field="",
        pair_prompt="tweet:",
        query_before="Paraphrase the following tweet without any explanation before or after it: ",
        retrieval=Wording('"{text}"', "text", " are written by a person" + _PATTERNS),
    ),
    "dialogue": Task(
        name="dialogue",
        official="Dialogue",
        title="Dialogue",
        kind="text",
        folder="",
        input_field="question",
        response_field="answer",
        long_responses=True,
        pair_prompt=SLOT,
        query_before="",
        dialogues=True,
    ),
}

# How a LaMP-1 profile item, a paper, becomes a pair: (input field, response field, prompt).
PAIRS: dict[str, tuple[str, str, str]] = {
    "abstract_to_title": ("abstract", "title", _ABSTRACT_PROMPT + SLOT),
    "title_to_abstract": ("title", "abstract", f"Write an abstract for this title: {SLOT}"),
    "citation": ("title", "citation", f"paper title: {SLOT} reference:"),
}


def register(task: Task, max_new_tokens: int) -> Task:
    """Add a task, to be chosen by ``task=<name>`` (docs/own-data.md).

    Args:
        task: The task.
        max_new_tokens: Longest answer, in tokens.

    Returns:
        The task.

    Raises:
        ConfigError: If there is one of that name, or its fields contradict each other.
    """
    if task.name in TASKS:
        raise ConfigError(f"task '{task.name}' exists already; give yours another name")
    for reason in _contradictions(task):
        raise ConfigError(f"task '{task.name}': {reason}")
    preset = {"name": task.name, "max_new_tokens": max_new_tokens}
    groups.add_preset("task", task.name, preset, task.title)
    TASKS[task.name] = task
    return task


def _contradictions(task: Task) -> Iterator[str]:
    if not task.name.isidentifier():
        yield "expected letters, digits and _ as its name; rename it"
    if (task.kind == "text") == bool(task.labels):
        yield f"kind={task.kind} needs labels=(...) unless it is 'text'; add or remove them"
    if task.response_field and SLOT not in task.pair_prompt:
        yield f"pair_prompt has no place for a pair's input; write {SLOT} there"


def find_task(name: str) -> Task:
    """Look a task up.

    Raises:
        ConfigError: If there is none of that name; the message names the nearest.
    """
    if name not in TASKS:
        raise ConfigError(
            f"task.name={name}: {suggestion(name, TASKS)}; one of your own needs "
            "plugins=[<file that registers it>]"
        )
    return TASKS[name]


def task(config: TaskConfig) -> Task:
    """Return the configured task, with the chosen pairs for LaMP-1.

    Raises:
        ConfigError: If there is no such task, or ``pair`` is set for one that has one kind of pair.
    """
    found = find_task(config.name)
    if config.pair == "default":
        return found
    if config.name != "lamp_1":
        raise ConfigError(
            f"task.pair: expected 'default' for {config.name}, got '{config.pair}'; "
            "only lamp_1 has several kinds of pairs"
        )
    input_field, response_field, prompt = PAIRS[config.pair]
    return replace(
        found,
        input_field=input_field,
        response_field=response_field,
        long_responses=response_field == "abstract",
        pair_prompt=prompt,
    )


def make_pair(task: Task, item: ProfileItem, max_words: int) -> Pair:
    """Turn a profile item into a record of D_u.

    Args:
        task: Task that names the two fields.
        item: Profile item with these fields.
        max_words: Longer fields are cut after so many words, see :func:`cut_words`.

    Raises:
        DataError: If the item lacks one of the fields.
    """
    missing = [field for field in task.fields if field not in item.fields]
    if missing:
        raise DataError(
            f"profile item '{item.id}': expected the fields {', '.join(task.fields)} for "
            f"{task.name}, '{missing[0]}' is missing; add it or choose another task or task.pair"
        )
    input_text, *response = (cut_words(item.fields[field], max_words) for field in task.fields)
    return Pair(id=item.id, input=input_text, response="".join(response))


def cut_words(text: str, max_words: int) -> str:
    """Return ``text`` up to the end of its word number ``max_words``; a shorter text unchanged.

    OPPU joins the words of every field with single blanks, also of fields that need no cut. Line
    breaks are part of a user's style, so they stay here.
    """
    ends = (match.end() for match in re.finditer(r"\S+", text))
    for number, end in enumerate(ends, start=1):
        if number == max_words:
            # only white space behind the last word: nothing is cut
            return text if not text[end:].strip() else text[:end]
    return text


def training_prompt(task: Task, pair: Pair) -> tuple[str, str]:
    """Return (prompt, completion): the loss is taken on the completion only.

    A pair of a task without a response, LaMP-7, is trained as plain text behind its prompt.
    """
    completion = pair.response if task.response_field else pair.input
    return task.pair_prompt.replace(SLOT, pair.input), completion


def training_example(task: Task, pair: Pair) -> tuple[Prompt, str]:
    """Return :func:`training_prompt` with the prompt in its parts."""
    before, slot, after = task.pair_prompt.partition(SLOT)
    _, completion = training_prompt(task, pair)
    return Prompt(before, pair.input if slot else "", after), completion


def as_prompt(task: Task, text: str) -> Prompt:
    """Part a whole prompt where the task's wording stands; one in another wording is all text."""
    try:
        inner = query_text(task, Query("", text, ""))
    except DataError:
        return Prompt("", text)
    start = text.index(task.query_before) + len(task.query_before)
    return Prompt(text[:start], inner, text[start + len(inner) :])


def query_text(task: Task, query: Query) -> str:
    """Return the text x inside an official query: what it is about, without the instruction.

    Raises:
        DataError: If the query does not have the task's wording.
    """
    if not task.query_before:
        return query.input
    _, before, text = query.input.partition(task.query_before)
    inner, after, _ = text.partition(task.query_after) if task.query_after else (text, "", "")
    if not before or after != task.query_after:
        expected = f"{task.query_before}…{task.query_after}"
        raise DataError(
            f"question '{query.id}', field 'input': expected the official wording of "
            f"{task.official} ({expected!r}), which does not stand there; "
            "check that the file belongs to this task, or add a Task record for your own wording"
        )
    return inner
