"""Fine-tuning against the Hugging Face Trainer: the same texts, counted without padding."""

from torch import nn

from benchmarks import finetuning

SMALL = ["source.options={num_users: 60, num_items: 50, num_interactions: 800}", "training.device=cpu"]


def test_both_learn_from_so_many_texts_a_step() -> None:
    results = list(finetuning.measure(1, 64, 8, 2, 1, 1e12, SMALL))
    assert [r["method"] for r in results] == ["mtrec", "Hugging Face Trainer"]
    for result in results:
        assert result["texts_per_step"] == 8
        assert result["tokens_per_second"] > 0
        assert 0 < result["utilisation"] < 1
    assert "| mtrec | 8.0 |" in finetuning.table(results)


def test_work_is_counted_by_weights_tokens_and_pairs_of_tokens() -> None:
    layers = nn.ModuleList([nn.Linear(4, 5, bias=False), nn.Linear(4, 5, bias=False)])
    assert finetuning.model_flops(layers, 4, [3, 1]) == 6 * 40 * 4 + 12 * 2 * 4 * (9 + 1)


def test_without_a_known_peak_no_utilisation_is_told() -> None:
    (first, *_) = finetuning.measure(1, 64, 8, 1, 1, None, SMALL)
    assert first["utilisation"] is None
    assert "|  | 1.00 |" in finetuning.table([first])
