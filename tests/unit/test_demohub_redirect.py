"""Our own Hub's content delivery network: signed addresses that need no token, and expire."""

from urllib.parse import parse_qs, urlsplit

import pytest
from helpers.hub import BASE, SHARDS, World
from helpers.raw import Answer, ask, part

from dsv4_stack.guest.demo.faults import Redirect
from dsv4_stack.guest.digests import of_bytes

pytest_plugins = ["helpers.hub_fixtures"]

FILE = f"{BASE}/{SHARDS[0]}"
PATH = f"/{BASE}/resolve/main/{SHARDS[0]}"
EXPIRED = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>\n"
)


def redirected(world: World, redirect: Redirect, *, method: str = "GET") -> Answer:
    world.server.faults.redirect = redirect
    return ask(world.server, PATH, method=method)


def target(answer: Answer) -> str:
    """Path and query."""
    url = urlsplit(answer.headers["Location"])
    return f"{url.path}?{url.query}"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_redirect_describes_the_file(world: World, method: str) -> None:
    answer = redirected(world, Redirect(lifetime_s=60), method=method)
    url = urlsplit(answer.headers["Location"])
    own = of_bytes((world.root / FILE).read_bytes())
    assert (answer.status, answer.body) == (302, b"")
    assert f"{url.scheme}://{url.netloc}" == world.url
    assert url.path.startswith("/cdn/")
    assert list(parse_qs(url.query)) == ["Expires", "Signature", "Key-Pair-Id"]
    assert answer.headers["X-Repo-Commit"] == world.revision(BASE)
    assert answer.headers["X-Linked-Size"] == str(own.size)
    assert answer.headers["X-Linked-ETag"] == f'"{own.sha256}"'


def test_the_bytes_lie_there_without_a_token(world: World) -> None:
    content = (world.root / FILE).read_bytes()
    where = target(redirected(world, Redirect()))
    whole, some = ask(world.server, where), ask(world.server, where, headers=part(100, 200))
    assert (whole.status, whole.body) == (200, content)
    assert (some.status, some.body, some.span) == (206, content[100:200], f"bytes 100-199/{len(content)}")
    assert world.server.sent == {FILE: len(content) + 100}
    assert world.server.authorized_cdn == 0


def test_a_token_that_comes_along_is_counted(world: World) -> None:
    where = target(redirected(world, Redirect()))
    assert ask(world.server, where, headers={"Authorization": "Bearer secret"}).status == 200
    assert world.server.authorized_cdn == 1


def test_another_host_by_name(world: World) -> None:
    world.server.faults.redirect_host = "localhost"
    url = urlsplit(redirected(world, Redirect()).headers["Location"])
    assert url.netloc == f"localhost:{world.server.server_address[1]}"


def test_each_address_is_another(world: World) -> None:
    wheres = {target(redirected(world, Redirect())) for _ in range(3)}
    assert len({where.partition("?")[0] for where in wheres}) == 3


def test_an_address_is_used_up(world: World) -> None:
    where = target(redirected(world, Redirect(uses=2)))
    answers = [ask(world.server, where, headers=part(0, 5)) for _ in range(3)]
    assert [answer.status for answer in answers] == [206, 206, 403]
    assert (answers[2].headers["Content-Type"], answers[2].body.decode()) == ("application/xml", EXPIRED)
    assert ask(world.server, target(redirected(world, Redirect(uses=2)))).status == 200


def test_an_address_expires(world: World) -> None:
    answer = ask(world.server, target(redirected(world, Redirect(lifetime_s=0))))
    assert (answer.status, answer.body.decode()) == (403, EXPIRED)


@pytest.mark.parametrize(
    "alter",
    [
        lambda where: where.partition("?")[0],
        lambda where: where.replace("Expires=", "Expires=9"),
        lambda where: where.replace("Signature=", "Signature=0"),
        lambda _: "/cdn/none?Expires=1&Signature=0&Key-Pair-Id=DEMO",
    ],
    ids=["unsigned", "later", "forged", "unknown"],
)
def test_an_altered_address_opens_nothing(world: World, alter: object) -> None:
    where = target(redirected(world, Redirect()))
    assert callable(alter)
    assert ask(world.server, alter(where)).status == 403
    assert ask(world.server, where).status == 200


def test_faults_of_bodies_go_for_the_network_too(world: World) -> None:
    content = (world.root / FILE).read_bytes()
    world.server.faults.cut_times[FILE] = 1
    world.server.faults.xet_only.add(f"{BASE}/{SHARDS[1]}")
    where = target(redirected(world, Redirect()))
    assert ask(world.server, where, headers=part(0, 100)).body == content[:50]
    other = ask(world.server, f"/{BASE}/resolve/main/{SHARDS[1]}")
    assert (other.status, ask(world.server, target(other)).status) == (302, 403)
