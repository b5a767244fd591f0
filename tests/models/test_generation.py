from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from conf.errors import ModelError
from conf.schema import CausalModelConfig, QLoraConfig, SamplingConfig
from models import generation, lora
from models.chat import encode_prompt
from models.generation import Generation, generate, inverse_cdf
from models.loading import load_causal, load_device_base, load_tokenizer

SAMPLED = SamplingConfig(temperature=1.0, max_new_tokens=24)
GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=24)
PROMPTS = ["a fine film", "bridge", "the council votes tonight on a new bridge", "review", "x y z"]


def load(folder, dtype: str = "float32"):
    return load_causal(CausalModelConfig(path=str(folder), dtype=dtype)), load_tokenizer(folder)


@pytest.fixture(scope="module")
def loaded(qwen2_folder):
    return load(qwen2_folder)


def sample(loaded, prompts=PROMPTS, seeds=None, sampling=SAMPLED, batch_size=8, **kwargs):
    seeds = list(range(len(prompts))) if seeds is None else seeds
    return generate(*loaded, prompts, seeds, sampling, batch_size, **kwargs)


def library_greedy(loaded, prompt: str, prefill: str = "", **settings) -> str:
    """What ``model.generate`` gives for one prompt with the same settings, all stated."""
    model, tokenizer = loaded
    begun = tokenizer.encode(prefill, add_special_tokens=False)
    ids = torch.tensor([[*encode_prompt(tokenizer, prompt, None, 512), *begun]])
    logits_processor = LogitsProcessorList(settings.pop("processors", []))
    generated = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        repetition_penalty=1.0,
        max_new_tokens=24,
        suppress_tokens=list(range(len(tokenizer), model.config.vocab_size)),
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        logits_processor=logits_processor,
        **settings,
    )
    return tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True)


def test_no_prompts_give_no_replies(loaded):
    assert sample(loaded, []) == []


def test_greedy_equals_the_library_s_greedy(loaded):
    replies = sample(loaded, sampling=GREEDY)
    assert [reply.text for reply in replies] == [library_greedy(loaded, p) for p in PROMPTS]


def test_a_reply_goes_on_from_its_prefill(loaded):
    replies = sample(loaded, sampling=GREEDY, prefill="Input: [")
    expected = [library_greedy(loaded, prompt, "Input: [") for prompt in PROMPTS]
    assert [reply.text for reply in replies] == expected
    assert replies != sample(loaded, sampling=GREEDY)


def test_a_control_token_in_a_prefill_stays_text(loaded):
    ended = sample(loaded, PROMPTS[:1], sampling=GREEDY, prefill="<|im_end|>")
    assert ended != sample(loaded, PROMPTS[:1], sampling=GREEDY)
    assert ended[0].text


def test_repetition_penalty_equals_the_library_s(loaded):
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=24, repetition_penalty=1.5)
    replies = sample(loaded, sampling=sampling)  # padded beside longer prompts
    processors = [RepetitionPenaltyLogitsProcessor(1.5)]
    expected = [library_greedy(loaded, p, processors=processors) for p in PROMPTS]
    assert [reply.text for reply in replies] == expected
    assert replies != sample(loaded, sampling=GREEDY)


@pytest.mark.parametrize("sampling", [SAMPLED, GREEDY])
def test_a_record_alone_gives_what_it_gives_in_a_batch(loaded, sampling):
    together = sample(loaded, sampling=sampling)
    for index, prompt in enumerate(PROMPTS):
        assert sample(loaded, [prompt], [index], sampling) == [together[index]]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_batch_size_and_order_do_not_matter(loaded, batch_size):
    expected = sample(loaded)
    assert sample(loaded, batch_size=batch_size) == expected
    backwards = sample(loaded, PROMPTS[::-1], [4, 3, 2, 1, 0], batch_size=batch_size)
    assert backwards == expected[::-1]


def test_samples_of_one_prompt_differ_by_seed_alone(loaded):
    replies = sample(loaded, ["bridge"] * 6, [1, 2, 3, 1, 2, 3])
    assert replies[:3] == replies[3:]
    assert len({reply.text for reply in replies}) == 3
    mixed = sample(loaded, ["bridge", "review", "bridge"], [1, 7, 2])
    assert [mixed[0], mixed[2]] == replies[:2]


@pytest.mark.parametrize("drop_share", [0.01, 1.0])  # at once, and never
def test_rows_that_finish_early_leave_the_others_unchanged(loaded, monkeypatch, drop_share):
    monkeypatch.setattr(generation, "DROP_SHARE", drop_share)
    hot = SamplingConfig(temperature=5.0, max_new_tokens=30)
    seeds = list(range(80))
    together = sample(loaded, ["bridge"] * 80, seeds, hot, batch_size=80)
    early = [seed for seed in seeds if together[seed].finished]
    assert len({together[seed].tokens for seed in early}) > 3
    for seed in (*early, 0, 79):
        assert sample(loaded, ["bridge"], [seed], hot) == [together[seed]]


def test_finished_says_whether_the_reply_ended_by_itself(loaded):
    replies = sample(loaded, ["bridge"] * 40, range(40), batch_size=40)
    assert {reply.finished for reply in replies} == {True, False}
    for reply in replies:
        assert reply.tokens <= 24
        assert reply.finished or reply.tokens == 24
        assert "<|" not in reply.text


def test_generation_config_of_the_checkpoint_has_no_influence(qwen2_folder, tmp_path, loaded):
    folder = shutil.copytree(qwen2_folder, tmp_path / "plain")
    shipped = json.loads((folder / "generation_config.json").read_text())
    assert (shipped["repetition_penalty"], shipped["top_k"]) == (1.1, 20)
    (folder / "generation_config.json").unlink()
    assert sample(load(folder)) == sample(loaded)
    assert sample(load(folder), sampling=GREEDY) == sample(loaded, sampling=GREEDY)
    extreme = shipped | {"repetition_penalty": 9.0, "top_k": 1, "max_length": 3, "num_beams": 4}
    (folder / "generation_config.json").write_text(json.dumps(extreme))
    assert sample(load(folder)) == sample(loaded)


@pytest.mark.parametrize("change", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}])
def test_each_setting_can_narrow_sampling_down_to_greedy(loaded, change):
    settings = {"temperature": 1.0, "max_new_tokens": 24} | change
    assert sample(loaded, sampling=SamplingConfig(**settings)) == sample(loaded, sampling=GREEDY)


def test_tokens_are_drawn_with_their_probabilities():
    logits = torch.tensor([0.5, 0.3, 0.0, 0.2]).log().expand(20_000, 4)
    uniforms = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    counts = torch.bincount(inverse_cdf(logits, uniforms), minlength=4)
    assert counts.tolist() == pytest.approx([10_000, 6_000, 0, 4_000], abs=1)


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (0.2499, 1), (0.2501, 3)])
def test_inverse_cdf_never_draws_a_forbidden_token(uniform, token):
    logits = torch.tensor([[-torch.inf, 0.25, -torch.inf, 0.75, -torch.inf]])
    logits[0, [1, 3]] = logits[0, [1, 3]].log()
    assert inverse_cdf(logits, torch.tensor([uniform], dtype=torch.float64)).tolist() == [token]


def test_ids_beyond_the_tokenizer_are_never_drawn(qwen2_folder):
    model, tokenizer = load(qwen2_folder)
    row = model.get_input_embeddings().weight.data
    row[len(tokenizer) :] = 100 * row[: model.config.vocab_size - len(tokenizer)]
    replies = sample((model, tokenizer), sampling=GREEDY)
    assert all(reply.text or reply.finished for reply in replies)


def test_the_adapter_in_the_slot_answers(qwen2_folder):
    qlora = QLoraConfig(compute_dtype="float32")
    model = lora.attach(load_device_base(qwen2_folder, qlora), qlora, seed=0)
    loaded = (model, load_tokenizer(qwen2_folder))
    bare = sample(loaded, sampling=GREEDY)
    for weight in lora.lora_parameters(model).values():
        weight.data += 0.1
    adapted = sample(loaded, sampling=GREEDY)
    assert adapted != bare
    with lora.disabled(model):
        assert sample(loaded, sampling=GREEDY) == bare


def test_generating_does_not_hinder_training_after_it(qwen2_folder):
    for dequantise_once in (False, True):
        qlora = QLoraConfig(dequantise_once=dequantise_once)
        model = lora.attach(load_device_base(qwen2_folder, qlora), qlora, seed=0)
        sample((model, load_tokenizer(qwen2_folder)))
        model.train()
        model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()


def test_bfloat16_repeats_itself_at_fixed_batches(qwen2_folder):
    loaded = load(qwen2_folder, "bfloat16")
    assert sample(loaded) == sample(loaded)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_texts_in_float32(qwen2_folder, loaded):
    config = CausalModelConfig(path=str(qwen2_folder), dtype="float32")
    on_gpu = (load_causal(config, "cuda:0"), loaded[1])
    assert sample(on_gpu, sampling=GREEDY) == sample(loaded, sampling=GREEDY)


def test_no_global_generator_is_moved(loaded):
    before = torch.get_rng_state()
    sample(loaded)
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_counts_prompts(loaded):
    done = []
    sample(loaded, batch_size=2, on_batch=done.append)
    assert done == [2, 2, 1]


def test_system_prompt_changes_the_answer(loaded):
    assert sample(loaded, sampling=GREEDY) != sample(loaded, sampling=GREEDY, system="comedy")


def test_prompt_longer_than_the_context_loses_its_oldest_part(loaded):
    long, short = "film " * 3000 + "bridge", "film " * 2000 + "bridge"
    assert sample(loaded, [long], sampling=GREEDY) == sample(loaded, [short], sampling=GREEDY)


def test_no_room_for_a_reply_is_an_error(loaded):
    with pytest.raises(ModelError, match="max_new_tokens below the model's context of 1024"):
        sample(loaded, sampling=SamplingConfig(max_new_tokens=1024))


def test_generation_is_a_plain_record():
    assert Generation("x", 1, True) == Generation("x", 1, True)


def test_the_output_layer_reads_states_that_lie_together(loaded):
    """Else PyTorch copies its weights once per prompt: 8 GiB for 32 prompts of Qwen2.5-0.5B."""
    head, seen = loaded[0].get_output_embeddings(), []
    hook = head.register_forward_hook(
        lambda _head, inputs, _output: seen.append((inputs[0].shape, inputs[0].stride()))
    )
    for prompts in (PROMPTS, PROMPTS[:1]):
        seen.clear()
        sample(loaded, prompts, sampling=GREEDY)
        assert seen[0][0][:2] == (len(prompts), 1)
        assert all(strides == (shape[2], shape[2], 1) for shape, strides in seen)
    hook.remove()
    assert not head._forward_pre_hooks
