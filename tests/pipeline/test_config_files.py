import pytest
from pydantic import Field

from onesearch.common.settings import Settings
from onesearch.pipeline.config_files import apply_overrides, load_settings, read_yaml


class Inner(Settings):
    learning_rate: float = Field(5e-4, gt=0)
    shares: dict[str, float] = Field(default_factory=dict)


class Outer(Settings):
    name: str = "x"
    training: Inner = Inner()
    maybe: Inner | None = None
    widths: tuple[int, ...] = ()


def write(folder, text, name="demo.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def test_yaml_numbers_and_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP", "/data/shop")
    path = write(tmp_path, "a: 5e-4\nb: ${SHOP}/items\nc: [1, '${NONE:-fallback}']\nd: {e: 1e3}\n")
    assert read_yaml(path) == {"a": 5e-4, "b": "/data/shop/items", "c": [1, "fallback"], "d": {"e": 1000.0}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\n", "not valid YAML.*line 2"),
        ("- a\n", "found a list"),
        ("a: 1\na: 2\n", "'a' is given twice"),
        ("b: 1\na: 2024-02-30\n", "'2024-02-30': day is out of range.*line 2"),
        ("a: {b: '${NOT_SET_ANYWHERE}'}\n", r"'a\.b' needs the environment variable NOT_SET_ANYWHERE"),
        ("a: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
    ],
)
def test_bad_yaml_says_what_is_wrong(tmp_path, text, message):
    with pytest.raises(ValueError, match="(?s)" + message):
        read_yaml(write(tmp_path, text))


def test_missing_file_names_its_neighbour(tmp_path):
    write(tmp_path, "a: 1\n", "homedepot.yaml")
    with pytest.raises(FileNotFoundError, match=r"did you mean .*homedepot\.yaml"):
        read_yaml(tmp_path / "homedpot.yaml")


def test_overrides_are_typed_and_leave_the_original_alone():
    values = {"training": {"learning_rate": 1.0}, "empty": None}
    sets = ["training.learning_rate=2e-4", "widths=[1, 2]", "name=abc", "training.shares.a=1", "empty.deep.er=true"]
    assert apply_overrides(values, sets) == {
        "training": {"learning_rate": 2e-4, "shares": {"a": 1}},
        "widths": [1, 2],
        "name": "abc",
        "empty": {"deep": {"er": True}},
    }
    assert values == {"training": {"learning_rate": 1.0}, "empty": None}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.learning_rat=1", r"unknown key 'training\.learning_rat'.*'training\.learning_rate'"),
        ("trainin.learning_rate=1", "unknown key 'trainin'.*'training'"),
        ("learning_rate=1", r"nearest valid key is 'training\.learning_rate'"),
        ("maybe.share=1", r"'maybe\.shares'"),
        ("name.first=1", "'name' is a value"),
        ("name", "key.subkey=value"),
        ("=1", "key.subkey=value"),
        ("widths=[1", "not valid YAML"),
    ],
)
def test_wrong_overrides_name_the_nearest_key(override, message):
    with pytest.raises(ValueError, match=message):
        apply_overrides({}, [override], Outer)


def test_load_settings(tmp_path):
    path = write(tmp_path, "training: {learning_rate: 1e-3}\n")
    loaded = load_settings(Outer, path, ["training.shares={q: 2}", "maybe.learning_rate=3"])
    assert loaded.training.learning_rate == 1e-3 and loaded.training.shares == {"q": 2.0}
    assert loaded.maybe is not None and loaded.maybe.learning_rate == 3.0


def test_load_settings_reports_every_wrong_value_with_file_and_key(tmp_path):
    path = write(tmp_path, "training: {learning_rate: -1}\nwidths: [1, wide]\n")
    with pytest.raises(ValueError) as caught:
        load_settings(Outer, path)
    text = str(caught.value)
    assert f"{path}: training.learning_rate: " in text and "greater than 0" in text and "widths.1" in text
    with pytest.raises(ValueError, match="unknown key 'nam' in Outer; the nearest valid key is 'name'"):
        load_settings(Outer, write(tmp_path, "nam: 1\n"))
