"""Markup: what becomes of HTML, and what only looks like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.data.clean.markup import example, plain_text
from job.data.layout import trim


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One</p><p>Two</p>", "One\n\nTwo"),
        ("<h1>Title</h1>Text<h2 id=x>More</h2>", "Title\n\nText\n\nMore"),
        ("<p>Do:</p><ul><li>a</li><li>b</li></ul>End", "Do:\n\na\nb\n\nEnd"),
        ("<ul>\n  <li>a\n  <li>b\n    <ul><li>c</li></ul>\n</ul>\n<p>d</p>", "a\nb\nc\n\nd"),
        ("One<br>two<br/>\nthree<BR />four", "One\ntwo\nthree\nfour"),
        ("One<br><br>two", "One\n\ntwo"),
        ("<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>", "a\tb\n1\t2"),
        ("<table>\n<tr>\n<td><p>1</p><p>x</p></td>\n<td>2<br>3</td>\n</tr></table>", "1 x\t2 3"),
        ("<table><tr><td>a<td>b<tr><td>c<td>d</table>e", "a\tb\nc\td\n\ne"),
        ("<dl><dt>Term</dt><dd>Means.</dd></dl>", "Term\nMeans."),
        ("<div>\n  <p>\n    one\n    two\n  </p>\n</div>", "one two"),
        ("<pre><code>def f():\n    return 1\n\n\tx</code></pre>after", "def f():\n    return 1\n\n\tx\n\nafter"),
        ("<code>if x:\n    y</code>", "if x:\n    y"),
        ("for x in y:<br>&nbsp;&nbsp;print(x)<br>    z", "for x in y:\n  print(x)\n    z"),
        ("plain\n    lines with <b>one</b> tag\nstay", "plain\n    lines with one tag\nstay"),
        ("Hello<b>World</b>, H<sub>2</sub>O", "HelloWorld, H2O"),
        ("10<sup>6</sup>, x<sup>-n</sup>, the 1<sup>st</sup>", "10^6, x^-n, the 1st"),
        ("a<script>if (a < b) { x('<p>') }</script><style>p {}</style>b", "ab"),
        ("<!DOCTYPE html><html><body><!-- c\nd -->x</body></html>", "x"),
        ("AT&amp;T &lt; &eacute; &#x41; &nbsp;| ?a=1&copy=2 &nothing;", "AT&T < é A  | ?a=1&copy=2 &nothing;"),
        ('<a href="x>y" title=\'a\'>here</a><img src="a.png" alt="b">', "here"),
        ('<input type="text" disabled>', ""),
    ],
)
def test_html_becomes_text(html: str, text: str) -> None:
    assert trim(plain_text(html)) == text
    assert plain_text(text) == text or "&" in text
    assert example(html) is not None


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d",
        "a<b and c>d",
        "if (i<p && p>0) x<y",
        "List<String> Map<K, V> Foo<B> Stack<P> vector<int> Promise<object>",
        "#include <map>\n#include <vector>\n    x",
        "cp <source> <target>; git clone <link>; usage: run <input> <output>",
        "Use the <title> here, <MyComponent> and <x-y>",
        "x <- y; <- <= <> << >> 1 <2",
        "<!-- never closed",
        "<!-->",
        "--> <!-- <!-- <!--",
        "a <b",
        "<div is open",
        "Q&A; R&D, a &b; &",
        "int main() {\n    cout << x;\n}",
    ],
)
def test_text_that_is_not_html_stays(text: str) -> None:
    assert plain_text(text) == text
    assert example(text) is None


PIECES = ["<p>", "</p>", "<ul>", "<li>", "</li>", "</ul>", "<table>", "<tr>", "<td>", "</td>", "</tr>", "</table>"]
PIECES += ["<pre>", "</pre>", "<br>", "<b>", "</b>", "<", ">", "&amp;", "&lt;", "<script>", "</script>", "\n", "  "]


@given(st.lists(st.sampled_from([*PIECES, "word", "x"]), max_size=25).map("".join))
def test_cleaning_html_is_idempotent_and_loses_no_word(html: str) -> None:
    text = plain_text(html)
    for _ in range(20):
        text, before = plain_text(text), text
    assert text == before
    if "</script>" not in html:
        assert "".join(text.split()).count("word") >= html.count("word")


def test_many_comments_that_are_not_closed_are_searched_for_once() -> None:
    """Each would be searched for to the end of the text: at this length for hours."""
    text = "<!-- a " * 200_000
    assert plain_text(f"<p>b</p>{text}").startswith("b\n\n<!-- a <!-- a ")
    assert plain_text(f"{text}-->b") == "b"
    assert plain_text("a<!-- b --><!-->c--> d<!---->e<!-- f") == "a de<!-- f"
    assert plain_text("one <!-- c --> two") == "one two"
    assert plain_text("<pre>one <!-- c --> two</pre>") == "one  two"
