"""Trees of a file that anybody may have written: sound ones predict as LightGBM does, all else is refused by name."""

import random

import lightgbm
import numpy as np
import pytest

from onesearch.common.boosted_trees import read_trees

FEATURES = 5


def trained(objective, classes=1):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, FEATURES))
    x[::7, 1] = np.nan
    y = (x[:, 0] + np.nan_to_num(x[:, 1]) ** 2 > 0.5).astype(int) + (classes > 2) * (x[:, 2] > 0)
    parameters = {"objective": objective, "num_leaves": 7, "verbosity": -1, "min_data_in_leaf": 5, "num_threads": 1}
    if classes > 1:
        parameters["num_class"] = classes
    group = [20] * 20 if objective == "lambdarank" else None
    return lightgbm.train(parameters, lightgbm.Dataset(x, y, group=group), 6).model_to_string(), x


@pytest.fixture(scope="module", params=[("lambdarank", 1), ("multiclass", 3)])
def model(request):
    return trained(*request.param)


def read(tmp_path, text):
    (tmp_path / "trees.txt").write_text(text)
    return read_trees(tmp_path / "trees.txt")


def test_sound_trees_predict_as_before(model, tmp_path):
    text, x = model
    plain, checked = lightgbm.Booster(model_str=text), lightgbm.Booster(model_str=read(tmp_path, text))
    np.testing.assert_array_equal(plain.predict(x), checked.predict(x))
    assert plain.feature_name() == checked.feature_name()
    assert read(tmp_path, read(tmp_path, text)) == read(tmp_path, text)


def test_a_tree_of_one_leaf_is_sound(tmp_path):
    data = lightgbm.Dataset(np.zeros((50, 2)), np.tile([0, 1], 25), group=[50])
    text = lightgbm.train({"objective": "lambdarank", "verbosity": -1}, data, 2).model_to_string()
    checked = lightgbm.Booster(model_str=read(tmp_path, text))
    np.testing.assert_array_equal(
        checked.predict(np.zeros((2, 2))), lightgbm.Booster(model_str=text).predict(np.zeros((2, 2)))
    )


LINES = {
    "num_class": ("0", "-1", "100001", "2", "x", ""),
    "num_tree_per_iteration": ("0", "7"),
    "max_feature_idx": ("-1", "3", "99999999999", "1e3"),
    "objective": ("custom", "binary", ""),
    "num_leaves": ("-5", "0", "97", "999999999", "7.0"),
    "num_cat": ("1",),
    "is_linear": ("1",),
    "split_feature": ("0 1 2 3 4 5", "0 0 0 0 0 -1", "0", "", "0 0 0 0 0 99999"),
    "left_child": ("0 0 0 0 0 0", "1 2 3 4 5 999999", "1 1 -1 -2 -3 -4", "-1 -2 -3 -4 -5 -99"),
    "threshold": ("x x x x x x", "nan 1 1 1 1 1", "1 1 1", "1_0 1 1 1 1 1"),
    "decision_type": ("1 2 2 2 2 2", "99 2 2 2 2 2"),
    "leaf_value": ("1", "x " * 7, "0x1 1 1 1 1 1 1"),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in LINES.items() for value in values])
def test_what_is_not_sound_is_refused(model, tmp_path, name, value):
    text, _ = model
    lines = text.split("\n")
    at = next(at for at, line in enumerate(lines) if line.startswith(f"{name}="))
    lines[at] = f"{name}={value}"
    with pytest.raises(ValueError, match=r"trees\.txt does not hold LightGBM's trees"):
        read(tmp_path, "\n".join(lines))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.7])
def test_a_file_that_was_cut_off_is_refused(model, tmp_path, share):
    text, _ = model
    with pytest.raises(ValueError, match=r"trees\.txt"):
        read(tmp_path, text[: int(share * text.index("end of trees"))])


def test_random_damage_is_refused_or_harmless(model, tmp_path):
    """Whatever passes is read by LightGBM, which would end this process at the first text that it cannot stand."""
    text, x = model
    chance, passed = random.Random(1), 0
    for _ in range(300):
        letters = list(text[: text.index("end of trees") + 12])
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(letters))
            letters[at : at + chance.randint(0, 9)] = chance.choice(["", "9", "-", " ", "\n", "=", "1 ", "\x00", "é"])
        try:
            checked = read(tmp_path, "".join(letters))
        except ValueError:
            continue
        passed += 1
        assert lightgbm.Booster(model_str=checked).predict(x[:, : checked.count("none")]).shape[0] == len(x)
    assert passed > 5
