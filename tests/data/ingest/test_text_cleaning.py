import polars as pl
import pytest

from onesearch.data.ingest.text_cleaning import clean, cleaned


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Ladies&#39; Scarf &amp; Hat", "Ladies' Scarf & Hat"),
        ("Tea&amp;amp;Coffee", "Tea&Coffee"),
        ("Big<br>Red <b>Mug</b>", "Big Red Mug"),
        ("<ul>\n<li class='x'>One</li><li>Two</li></ul>", "One Two"),
        ("Lamp&lt;br/&gt;LED", "Lamp LED"),
        ("A<script>alert(1)</script>B<!-- no -->C", "A B C"),
        ("A<style>p {color: red}", "A"),
        ("I <3 size <M> a < b & c &unknown;", "I <3 size <M> a < b & c &unknown;"),
        ("Sh\u200bo\u00ade\x00Lace\ufeff", "Shoe Lace"),
        ("<p></p>", ""),
        ("Shirt <S> or <B>", "Shirt <S> or <B>"),
        ("Jacket &lt;U&gt; <b>new</b>", "Jacket <U> new"),
        ("<S>9.99</S> 7.99 <I>now</i>", "9.99 7.99 now"),
        ("<P>One<br>Two", "One Two"),
        ("Jeans <P>", "Jeans <P>"),
        ("caf\u00e9 \u2019 100 %", "caf\u00e9 \u2019 100 %"),
    ],
)
def test_html_becomes_text_and_text_stays(written, read):
    assert clean(written) == read
    assert clean(read) == read


def test_columns_are_cleaned_and_counted():
    frame = pl.DataFrame(
        {
            "t": ["a &amp; b", None, "plain  twice", "M\u00c3\u00bcller", "\ufffd"],
            "c": [["A &gt; B", "<b>C</b>"], None, [], ["D"], [None, "E&#33;"]],
            "n": [1, 2, 3, 4, 5],
        }
    )
    out, repaired, suspicious = cleaned(frame, {"title": ["t"], "category": ["c"], "price": ["n"]})
    assert out["t"].to_list() == ["a & b", None, "plain  twice", "M\u00c3\u00bcller", "\ufffd"]
    assert out["c"].to_list() == [["A > B", "C"], None, [], ["D"], ["", "E!"]]
    assert out["n"].to_list() == [1, 2, 3, 4, 5]
    what = "HTML or invisible characters"
    assert repaired == {f"title: {what}": 1, f"category: {what}": 2}
    assert suspicious == {"title: looks like another encoding": 2}


def test_what_looks_like_html_and_stays_is_not_counted():
    out, repaired, _ = cleaned(pl.DataFrame({"t": ["Shirt <S>", "Shirt <b>M</b>"]}), {"title": ["t"]})
    assert out["t"].to_list() == ["Shirt <S>", "Shirt M"]
    assert repaired == {"title: HTML or invisible characters": 1}
