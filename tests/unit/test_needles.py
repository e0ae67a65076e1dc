"""The search that the end-to-end tests end with: what it must find in each of its forms, and what may be told."""

from __future__ import annotations

import base64

import pytest

from e2e.needles import Needles


def found(text: str, needles: Needles | None = None) -> list[str]:
    return [thing for thing, _ in (needles or Needles()).found_in(text)]


@pytest.mark.parametrize(
    "written",
    [
        "user1@five-thousand.example",
        "USER8@SHOP.EXAMPLE",
        "o'neill+x.y@a.b.example",
        "user1%40shop.example",
        "nobody.shop.example",
        "eyJhbGciOiJSUzI1NiJ9",
        "Zoë",
        "Zo\\u00eb",
    ],
)
def test_what_must_be_written_nowhere_is_found(written: str) -> None:
    assert found(f'{{"event": "sent to <{written}>, at last"}}') == [written]


@pytest.mark.parametrize("written", ["Example Shop <news@shop.example>", "most at shop.example 100 %", "<recipient>"])
def test_what_may_be_told_is_not_found(written: str) -> None:
    assert found(written) == []


def test_a_secret_is_found_in_each_of_its_forms() -> None:
    needles = Needles()
    url = "postgresql://shop:horse%20battery@db/shop"
    needles.add("shop/db", "url", url.encode())
    forms = ("horse battery", "horse%20battery", base64.b64encode(b"horse battery"), base64.b64encode(url.encode()))
    for form in forms:
        assert found(f"x {form if isinstance(form, str) else form.decode()} y", needles)
    assert found("postgresql://shop@db/shop", needles) == []


def test_of_a_key_and_its_certificate_only_the_key_is_secret() -> None:
    needles = Needles()
    needles.add("shop/tls", "chain.pem", b"-----BEGIN CERTIFICATE-----\nMIIpublic\n-----END CERTIFICATE-----\n")
    assert needles.secrets == {}
    needles.add("shop/tls", "key.pem", b"-----BEGIN PRIVATE KEY-----\nMIIprivate\n-----END PRIVATE KEY-----\n")
    assert found("MIIprivate", needles)


def test_a_password_that_cannot_be_told_from_other_words_is_refused() -> None:
    with pytest.raises(ValueError, match="8 letters or more"):
        Needles().add("shop/db", "url", b"postgresql://shop:shop@db/shop")
