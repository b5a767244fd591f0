"""LongLaMP's topic writing as a plugin: a post of the user's own from its summary.

    python -m sim plugins=[examples/longlamp_topic.py] task=longlamp_topic \
        data=examples/records users=2 model=smollm2_wheel

The six users in ``examples/records`` are invented. Real records are those of Kumar et al.,
"LongLaMP: A Benchmark for Personalized Long-form Text Generation" (arXiv 2407.11016), subset
``topic_writing``; their profile items have a summary and a content, and the prompt is theirs.
"""

from __future__ import annotations

from lamp.tasks import SLOT, Task, Wording, register

PROMPT = "Generate the content for a reddit post "

register(
    Task(
        name="longlamp_topic",
        official="LongLaMP_topic",
        title="LongLaMP topic writing",
        kind="text",
        folder="LongLaMP_topic",
        input_field="summary",
        response_field="content",
        long_responses=True,
        pair_prompt=PROMPT + SLOT,
        query_before=PROMPT,
        retrieval=Wording('"{summary}" is a summary for "{content}"', "content"),
    ),
    max_new_tokens=256,
)
