"""A canvas that tags what it draws (headings, paragraphs, tables, figures), embeds files, and writes no clock into it.

The structure follows ISO 32000-1, 14.7 and 14.8: marked content on the pages, a tree of elements, and a parent tree
back from each page's marks. Everything here is a function of what is drawn, so equal cards are equal bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from reportlab.pdfbase.pdfdoc import (
    PDFArray,
    PDFDictionary,
    PDFDocument,
    PDFInfo,
    PDFName,
    PDFObjectReference,
    PDFStream,
    PDFString,
    PDFZCompress,
)
from reportlab.pdfgen.canvas import Canvas

from audit.cards.fonts import FACES, TEXT

PRODUCER = "Assay"


@dataclass
class Element:
    """A node of the structure: either it has children, or one mark on one page."""

    role: str
    alt: str = ""
    children: list[Element] = field(default_factory=list)
    page: int = 0
    mark: int = -1


class Information(PDFInfo):  # type: ignore[misc]
    """The document's information without a clock: ``date`` is when what it says was recorded, or left out."""

    date = ""

    def format(self, document: PDFDocument) -> bytes:
        """The dictionary as bytes."""
        entries = {"Title": self.title, "Author": self.author, "Subject": self.subject, "Producer": PRODUCER}
        if self.date:
            entries |= {"CreationDate": self.date, "ModDate": self.date}
        return bytes(PDFDictionary({k: PDFString(v) for k, v in entries.items()}).format(document))


class TaggedCanvas(Canvas):  # type: ignore[misc]
    """What flowables draw on: ``mark`` a leaf, ``group`` what belongs together, ``artifact`` what is decoration."""

    def __init__(self, *args: Any, digest: str, date: str, files: Mapping[str, bytes], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._doc.info.__class__ = Information
        self._doc.info.date = date
        self._doc._pdfVersion = (1, 7)
        # The identifier that reportlab makes depends on the environment.
        self._doc._ID = f"\n[<{digest[:32]}><{digest[:32]}>]\n".encode()
        self._files = files
        self._open = [Element("Document")]
        self._marks: list[list[Element]] = []

    @contextmanager
    def mark(self, role: str, alt: str = "") -> Iterator[None]:
        """Draws the content of one element."""
        while len(self._marks) < self.getPageNumber():
            self._marks.append([])
        page = self._marks[-1]
        element = Element(role, alt, page=self.getPageNumber(), mark=len(page))
        page.append(element)
        self._open[-1].children.append(element)
        self._code.append(f"/{role} <</MCID {element.mark}>> BDC")
        yield
        self._code.append("EMC")

    @contextmanager
    def group(self, role: str) -> Iterator[None]:
        """Puts what is drawn inside under one element."""
        element = Element(role)
        self._open[-1].children.append(element)
        self._open.append(element)
        yield
        self._open.pop()

    @contextmanager
    def artifact(self) -> Iterator[None]:
        """Draws what a reader aloud should skip."""
        self._code.append("/Artifact BMC")
        yield
        self._code.append("EMC")

    def setFont(self, name: str, size: float, leading: float | None = None) -> None:
        """Sets a typeface that is embedded; drawings would begin in one that is not."""
        super().setFont(name if name in FACES else TEXT, size, leading)

    def showPage(self) -> None:
        """Ends the page and ties its marks to the tree."""
        number = self.getPageNumber()
        super().showPage()
        page = self._doc.idToObject[f"Page{number}"]
        page.__NoDefault__ = [*page.__NoDefault__, "StructParents", "Tabs"]
        page.StructParents, page.Tabs = number - 1, PDFName("S")

    def save(self) -> None:
        """Writes structure and files, then the document."""
        if self._code:
            self.showPage()
        self._write_structure()
        self._write_files()
        super().save()

    def _write_structure(self) -> None:
        references: dict[int, PDFObjectReference] = {}
        root = PDFDictionary({"Type": PDFName("StructTreeRoot")})
        reference = self._doc.Reference(root)
        root["K"] = PDFArray([self._element(self._open[0], reference, references)])
        pages: list[Any] = []
        for number, marks in enumerate(self._marks):
            pages += [number, PDFArray([references[id(e)] for e in marks])]
        root["ParentTree"] = self._doc.Reference(PDFDictionary({"Nums": PDFArray(pages)}))
        root["ParentTreeNextKey"] = len(self._marks)
        self._doc.Catalog.StructTreeRoot = reference
        self._doc.Catalog.MarkInfo = PDFDictionary({"Marked": "true"})

    def _element(self, element: Element, parent: Any, references: dict[int, PDFObjectReference]) -> PDFObjectReference:
        entries = PDFDictionary({"Type": PDFName("StructElem"), "S": PDFName(element.role), "P": parent})
        reference = self._doc.Reference(entries)
        references[id(element)] = reference
        if element.alt:
            entries["Alt"] = PDFString(element.alt)
        if element.role == "TH":
            entries["A"] = PDFDictionary({"O": PDFName("Table"), "Scope": PDFName("Column")})
        if element.mark >= 0:
            entries["Pg"] = PDFObjectReference(f"Page{element.page}")
            entries["K"] = element.mark
        else:
            entries["K"] = PDFArray([self._element(c, reference, references) for c in element.children])
        return reference

    def _write_files(self) -> None:
        names: list[Any] = []
        specifications = []
        for name, data in sorted(self._files.items()):
            # The standard's own checksum of an embedded file is MD5; it guards nothing.
            checksum = hashlib.md5(data, usedforsecurity=False).digest()
            parameters = PDFDictionary({"Size": len(data), "CheckSum": PDFString(checksum, enc="raw")})
            entries = {"Type": PDFName("EmbeddedFile"), "Subtype": "/application#2Fjson", "Params": parameters}
            stream = PDFStream(PDFDictionary(entries), data)
            stream.filters = [PDFZCompress]
            held = self._doc.Reference(stream)
            specification = PDFDictionary(
                {
                    "Type": PDFName("Filespec"),
                    "F": PDFString(name),
                    "UF": PDFString(name),
                    "EF": PDFDictionary({"F": held, "UF": held}),
                    "AFRelationship": PDFName("Source"),
                }
            )
            specifications.append(self._doc.Reference(specification))
            names += [PDFString(name), specifications[-1]]
        catalog = self._doc.Catalog
        catalog.__NoDefault__ = [*catalog.__NoDefault__, "AF"]
        catalog.AF = PDFArray(specifications)
        catalog.Names = PDFDictionary({"EmbeddedFiles": PDFDictionary({"Names": PDFArray(names)})})
