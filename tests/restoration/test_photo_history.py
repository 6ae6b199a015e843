"""The entry in the XMP."""

from importlib.metadata import Distribution, PackageNotFoundError
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL.PngImagePlugin import PngInfo

from restoration import __version__
from restoration.photo import decode_photo, encode_photo
from restoration.photo_history import History, add_history

from .small_generator import encode

HISTORY = History("0007", 0.0125)
RDF = b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'


def agents(xmp: bytes) -> list[str | None]:
    events = ElementTree.fromstring(xmp).findall(".//{*}History/{*}Seq/{*}li")
    return [event.findtext("{*}softwareAgent") or event.get("who") for event in events]


def test_a_photo_without_xmp_gets_a_packet_of_nothing_else():
    (agent,) = agents(add_history(None, HISTORY))
    assert agent is not None
    assert agent.startswith("photo-restoration ")
    assert agent.endswith(", release 0007")


def test_the_entry_can_be_written_where_the_code_is_there_but_not_as_an_installed_package(
    monkeypatch: pytest.MonkeyPatch,
):
    def find_nothing(name: str) -> Distribution:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(Distribution, "from_name", find_nothing)
    assert agents(add_history(None, HISTORY)) == [f"photo-restoration {__version__}, release 0007"]


def test_the_rest_of_a_packet_stays_byte_for_byte():
    before = b"<?xpacket begin=''?>" + RDF + b"<rdf:Description><odd  spacing = '1'/></rdf:Description></rdf:RDF>"
    after = add_history(before, HISTORY)
    at = before.index(b"</rdf:RDF>")
    assert after.startswith(before[:at])
    assert after.endswith(before[at:])


def test_an_entry_goes_behind_those_that_are_there():
    history = b'<xmpMM:History xmlns:xmpMM="m"><rdf:Seq><rdf:li who="scanner"/></rdf:Seq></xmpMM:History>'
    xmp = RDF + b"<rdf:Description>" + history + b"</rdf:Description></rdf:RDF>"
    xmp = xmp.replace(b'<xmpMM:History xmlns:xmpMM="m">', b"<xmpMM:History>").replace(
        b"Description>", b'Description xmlns:xmpMM="m">', 1
    )
    assert [agent.split(",")[-1] for agent in agents(add_history(xmp, HISTORY))] == ["scanner", " release 0007"]


@pytest.mark.parametrize("history", [b"<xmpMM:History/>", b"<xmpMM:History><rdf:Seq/></xmpMM:History>"])
def test_an_empty_history_gets_its_first_entry(history):
    xmp = RDF + b'<rdf:Description xmlns:xmpMM="m">' + history + b"</rdf:Description></rdf:RDF>"
    assert agents(add_history(xmp, HISTORY)) == [f"photo-restoration {__version__}, release 0007"]


@pytest.mark.parametrize(
    "xmp",
    [
        b"no XML at all",
        RDF.decode().encode("utf-16"),
        RDF + b"<rdf:Description xmpMM:History='as an attribute'/></rdf:RDF>",
        RDF + b"<rdf:Description><xmpMM:History /></rdf:Description></rdf:RDF>",
        RDF[:-1] + b"/>",
        RDF + b"<xmpMM:History><rdf:Bag/></xmpMM:History><dc:x><rdf:Seq></rdf:Seq></dc:x></rdf:RDF>",
    ],
)
def test_what_is_written_otherwise_is_left_as_it_is(xmp):
    assert add_history(xmp, HISTORY) == xmp


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_xmp_that_a_jpeg_has_room_for_only_without_the_entry_stays(format):
    description = b"<rdf:Description dc:source='" + b"x" * 65_000 + b"' xmlns:dc='http://purl.org/dc/elements/1.1/'/>"
    xmp = RDF + description + b"</rdf:RDF>"
    texts = PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", xmp.decode())
    options = {"pnginfo": texts} if format == "PNG" else {"xmp": xmp}
    photo = decode_photo(encode(np.zeros((8, 8), np.uint8), format, **options))
    written = decode_photo(encode_photo(photo, photo.samples + np.uint8(90), format="jpeg", history=HISTORY))
    assert written.metadata.xmp == photo.metadata.xmp == xmp


def test_no_time_and_no_host_is_in_it():
    assert add_history(None, HISTORY) == add_history(None, HISTORY)
    assert b"when" not in add_history(None, HISTORY)
