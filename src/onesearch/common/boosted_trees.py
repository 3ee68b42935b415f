"""LightGBM's trees from a file that anybody may have written.

LightGBM trusts its text format: a child or a feature out of range, a list that is too short or a file that was cut ends
the process, or lets it walk in a circle. So nothing of a file reaches it but what is checked here and written anew.
"""

import re
from pathlib import Path
from typing import Final

_INTEGER: Final = re.compile(r"-?\d{1,18}")
_NUMBER: Final = re.compile(r"-?(inf|\d+(\.\d*)?(e[-+]?\d{1,3})?)")
_OBJECTIVE: Final = re.compile(r"lambdarank|multiclass num_class:\d{1,3}")
_MOST: Final = 100_000  # features, leaves, and values of one line
_HEAD: Final = ("num_class", "num_tree_per_iteration", "label_index", "max_feature_idx")
# Lists of a tree with L leaves: one number for each of its L - 1 splits, or for each leaf.
_OF_SPLITS: Final = {
    "split_feature": _INTEGER,
    "split_gain": _NUMBER,
    "threshold": _NUMBER,
    "decision_type": _INTEGER,
    "left_child": _INTEGER,
    "right_child": _INTEGER,
}
_OF_LEAVES: Final = {"leaf_value": _NUMBER}


def read_trees(path: Path) -> str:
    """What a file says in LightGBM's format, checked and written anew: a text that ``lightgbm.Booster`` may read.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it does not hold trees over plain numbers, as this package's are.
    """
    try:
        return _written_anew(path.read_text(encoding="utf-8"))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} does not hold LightGBM's trees ({error}); make the run's stage again") from None


def _written_anew(text: str) -> str:
    """The head and the trees, of known keys alone; ValueError or KeyError for what is wrong."""
    body, end, _ = text.partition("\nend of trees")
    if not end:
        raise ValueError("it was cut off")
    head_text, *tree_texts = body.split("\nTree=")
    head = _lines(head_text)
    numbers = {name: _integer(head[name]) for name in _HEAD}
    classes, features = numbers["num_class"], numbers["max_feature_idx"] + 1
    # What the head says must fit what LightGBM multiplies and reads with it.
    if not (1 <= classes <= _MOST and numbers["num_tree_per_iteration"] == classes and 1 <= features <= _MOST):
        raise ValueError("its head has impossible numbers")
    if not tree_texts or len(tree_texts) % classes:
        raise ValueError(f"{len(tree_texts)} trees for {classes} classes")
    if not _OBJECTIVE.fullmatch(head["objective"]) or len(head["feature_names"].split()) != features:
        raise ValueError("another objective or other features")
    if classes > 1 and head["objective"] != f"multiclass num_class:{classes}":
        raise ValueError("its objective has another number of classes")
    trees = [f"Tree={number}\n{_tree(_lines(tree), features)}\n" for number, tree in enumerate(tree_texts)]
    lines = [f"{name}={value}" for name, value in numbers.items()]
    lines += [f"{name}={head[name]}" for name in ("objective", "feature_names")]
    lines += [
        f"feature_infos={' '.join(['none'] * features)}",
        f"tree_sizes={' '.join(str(len(one)) for one in trees)}",
    ]
    return "tree\nversion=v4\n" + "\n".join(lines) + "\n\n" + "".join(trees) + "\nend of trees\n"


def _tree(lines: dict[str, str], features: int) -> str:
    leaves = _integer(lines["num_leaves"])
    if not 1 <= leaves <= _MOST or lines["num_cat"] != "0" or lines.get("is_linear", "0") != "0":
        raise ValueError("a tree of a kind that is not used here")
    found = {name: _list(lines, name, leaves - 1, form) for name, form in _OF_SPLITS.items()}
    found |= {name: _list(lines, name, leaves, form) for name, form in _OF_LEAVES.items()}
    if not all(0 <= int(feature) < features for feature in found["split_feature"]):
        raise ValueError("a split by a feature that there is not")
    if not all(0 <= int(kind) < 16 and int(kind) % 2 == 0 for kind in found["decision_type"]):
        raise ValueError("a split of a kind that is not used here")
    # -1, -2, ... are the leaves. One way to each node and none to the root: no walk from there comes round again.
    children = sorted(map(int, found["left_child"] + found["right_child"]))
    if leaves > 1 and children != [*range(-leaves, 0), *range(1, leaves - 1)]:
        raise ValueError("a node that no split or two splits lead to")
    lists = [f"{name}={' '.join(values)}" for name, values in found.items()]
    return "\n".join([f"num_leaves={leaves}", "num_cat=0", *lists, "is_linear=0", "shrinkage=1", "", ""])


def _lines(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition("=") for line in text.splitlines())}


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{text[:20]!r} is no whole number")
    return int(text)


def _list(lines: dict[str, str], name: str, length: int, form: re.Pattern[str]) -> list[str]:
    values = lines[name].split()
    if len(values) != length or not all(form.fullmatch(value) for value in values):
        raise ValueError(f"{name} is not {length} numbers")
    return values
