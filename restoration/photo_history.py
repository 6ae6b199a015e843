"""An entry in a photo's XMP that says what was done to it: so an archive can tell a restored file from a master.

It is an event of `xmpMM:History` (XMP specification, part 2: ResourceEvent) that names the service, the
release and the share of the photo that was restored; no time and no host, so that the same photo gives the same bytes.
It is put into the packet as text, and nothing else in the packet moves. A packet that is no XML in UTF-8 with
the usual prefixes is left as it is, and so is one whose history is written in another way, or as an attribute.
"""

from dataclasses import dataclass

from restoration import __version__

_PACKAGE = "photo-restoration"
_END_OF_HISTORY = b"</rdf:Seq>"
_START_OF_HISTORY = b"<xmpMM:History>"
_EMPTY_HISTORIES = (b"<xmpMM:History/>", b"<xmpMM:History><rdf:Seq/></xmpMM:History>")
_EMPTY_HISTORY = b"<xmpMM:History><rdf:Seq></rdf:Seq></xmpMM:History>"
_END_OF_DESCRIPTIONS = b"</rdf:RDF>"
_NAMESPACES = (
    b'xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/" xmlns:stEvt="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"'
)
_EMPTY_PACKET = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


@dataclass(frozen=True)
class History:
    """release: its number, such as 0004; damage_ratio: the share of the photo that was restored, in [0, 1]; denoise:
    how much of its noise was taken out, in [0, 1]."""

    release: str
    damage_ratio: float
    denoise: float = 0.0

    def as_event(self) -> bytes:
        """As an item of an rdf:Seq, which needs `_NAMESPACES` around it or in it."""
        done = f"damage restored: {self.damage_ratio:.4%} of the photo"
        if self.denoise:
            done += f"; denoised by {self.denoise:g}"
        return (
            f'<rdf:li {_NAMESPACES.decode()} rdf:parseType="Resource"><stEvt:action>edited</stEvt:action>'
            f"<stEvt:softwareAgent>{_PACKAGE} {__version__}, release {self.release}</stEvt:softwareAgent>"
            f"<stEvt:parameters>{done}</stEvt:parameters></rdf:li>"
        ).encode()


def add_history(xmp: bytes | None, history: History) -> bytes:
    """The packet with the entry as the last of its history."""
    xmp, event = xmp or _EMPTY_PACKET, history.as_event()
    for empty in _EMPTY_HISTORIES:
        xmp = xmp.replace(empty, _EMPTY_HISTORY)
    start, end = xmp.find(_START_OF_HISTORY), xmp.rfind(_END_OF_DESCRIPTIONS)
    if start >= 0:
        at = xmp.find(_END_OF_HISTORY, start)
        is_plain = 0 <= at < xmp.find(b"</xmpMM:History>", start)
        return xmp[:at] + event + xmp[at:] if is_plain else xmp
    if end < 0 or b"xmpMM:History" in xmp:
        return xmp
    description = (
        b'<rdf:Description rdf:about="" '
        + _NAMESPACES
        + b"><xmpMM:History><rdf:Seq>"
        + event
        + b"</rdf:Seq></xmpMM:History></rdf:Description>"
    )
    return xmp[:end] + description + xmp[end:]
