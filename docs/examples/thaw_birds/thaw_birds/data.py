"""Notes in text files: `<data_dir>/<folder>/<split>/<class>/*.txt`."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from datamodules.base import SPLITS
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.rows import Row
from datamodules.text import TextDataModule


class NotesDataModule(TextDataModule):
    """One file for each text, in a folder for each class. All arguments are the base's."""

    def sources(self) -> dict[str, tuple[str, Iterable[Row | BadRow]]]:
        """Return a name and the rows of each split."""
        root = Path(self.data_dir) / self.folder
        if not root.is_dir():
            msg = f"{root} is not a folder; set paths.data_dir and data.folder"
            raise DataError(msg)
        return {split: (split, self._notes(root / split, split)) for split in SPLITS}

    def _notes(self, folder: Path, split: str) -> Iterator[Row | BadRow]:
        for index, path in enumerate(sorted(folder.glob("*/*.txt"))):
            name = f"{path.parent.name}/{path.name}"
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                yield BadRow(split, name, index + 1, None, "is not UTF-8")
                continue
            columns = {self.reader.text_column: text, self.labels.columns[0]: path.parent.name}
            yield Row(index, None, columns)
