"""Click features that were saved give what they gave before; damaged ones are refused."""

import json

import numpy as np
import pytest

from damaged_tensors import damaged
from onesearch.data.click_statistics import ClickStatistics
from onesearch.search.click_feature_files import load_click_features, save_click_features
from onesearch.search.click_features import ClickFeatures
from small_engine import ITEMS, LOG


@pytest.fixture
def saved(tmp_path):
    statistics = ClickStatistics.from_page_views(LOG, ITEMS)
    features = ClickFeatures.from_log(statistics, ITEMS)
    save_click_features(features, ITEMS, tmp_path)
    return features, tmp_path


def test_loaded_features_are_those_that_were_saved(saved):
    before, folder = saved
    after, traits = load_click_features(before.statistics, folder)
    queries = [*LOG["query"].to_list(), "red lamp", "never seen"]
    items = np.tile(np.arange(-1, len(ITEMS)), (len(queries), 1))
    facts = before.query_facts(queries)
    np.testing.assert_array_equal(after.query_facts(queries).words, facts.words)
    expected = before.features(facts, items, before.item_traits(ITEMS))
    found = after.features(after.query_facts(queries), items, traits)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    # What an item that changes later is numbered by.
    for one, other in zip(after.traits_of(ITEMS[3:7])[1:], before.traits_of(ITEMS[3:7])[1:], strict=True):
        np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(after.traits_of(ITEMS)[0], before.traits_of(ITEMS)[0])


def test_damaged_arrays_are_refused_with_a_sentence(saved):
    features, folder = saved
    path, ways = folder / "arrays.safetensors", 0
    for way in damaged(path, free=("item.keys", "category.keys")):
        ways += 1
        with pytest.raises(ValueError, match="make the run's stage again"):
            load_click_features(features.statistics, folder)
            pytest.fail(way)
    assert ways > 21 * 3
    load_click_features(features.statistics, folder)


def test_counts_in_disorder_are_refused(saved):
    features, folder = saved
    words = features.words
    for name in ("of_item", "of_category"):
        keys = getattr(words, name).pairs.keys
        keys[[0, 1]] = keys[[1, 0]]
        save_click_features(features, ITEMS, folder)
        with pytest.raises(ValueError, match="the counts of"):
            load_click_features(features.statistics, folder)
        keys[[0, 1]] = keys[[1, 0]]


@pytest.mark.parametrize("change", ["drop", "more", "smoothing", "number", "none"])
def test_names_that_do_not_fit_are_refused(saved, change):
    features, folder = saved
    path = folder / "names.json"
    about = json.loads(path.read_text())
    match change:
        case "drop":
            del about["names"]["title"]
        case "more":
            about["names"]["words"].append("new")
        case "smoothing":
            about["smoothing"]["item"] = 0
        case "number":
            about["names"]["category"] = 5
        case "none":
            about = {}
    path.write_text(json.dumps(about))
    with pytest.raises(ValueError, match="make the run's stage again"):
        load_click_features(features.statistics, folder)


def test_features_of_another_catalogue_are_refused(saved):
    _, folder = saved
    with pytest.raises(ValueError, match="things"):
        load_click_features(ClickStatistics.from_page_views(LOG, ITEMS[:-1]), folder)
