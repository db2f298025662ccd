"""The catalogue of refusals: each code has a status and a title, and a refusal has what its answer needs."""

from scoreboard.domain.errors import STATUS, TITLE, Code, FieldError, LimitLayer, invalid_request, rate_limited


def test_every_code_has_a_status_and_a_title() -> None:
    """No code is without its HTTP status and its title."""
    assert set(STATUS) == set(TITLE) == set(Code)
    assert all(400 <= status < 600 for status in STATUS.values())


def test_layers_are_part_of_the_contract() -> None:
    """Clients read these words in `layer`."""
    assert {str(layer) for layer in LimitLayer} == {"ip", "login", "user", "cooldown", "daily", "server_key"}


def test_rate_limited_names_the_wait() -> None:
    """The wait stands in Retry-After, and in the detail unless it is left out there."""
    refusal = rate_limited(LimitLayer.IP, "Too many requests.", 7)
    assert (refusal.code, refusal.layer, refusal.retry_after) == (Code.RATE_LIMITED, "ip", 7)
    assert refusal.detail == "Too many requests. Next in 7 s."
    assert rate_limited(LimitLayer.IP, "Too many requests.", 7, names_wait=False).detail == "Too many requests."


def test_invalid_request_names_the_field() -> None:
    """The field stands in the detail, for people, and in the errors, for programs."""
    refusal = invalid_request("limit", "must be 1 to 100")
    assert refusal.detail == "limit must be 1 to 100"
    assert refusal.errors == (FieldError("limit", "must be 1 to 100"),)
