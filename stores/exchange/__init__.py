"""Feature files of others: export to them and import from them.

    list_layouts()                                         # what is known, declared in layouts/
    export_features(store, "masn", folder, keys=table)     # ExportReport
    import_features(store, "bmt", folder)                  # ImportReport

A layout declares slots: which feature lies where, of what shape. A container knows a kind of files
(HDF5, folders of npy, LMDB, tars, ...). See docs/exchange.md.
"""

from vlpipe.stores.exchange.exporting import ExportReport, export_features
from vlpipe.stores.exchange.importing import ImportReport, import_features
from vlpipe.stores.exchange.keys import KeyTable, read_key_tables
from vlpipe.stores.exchange.layout import Layout, Slot
from vlpipe.stores.exchange.registry import find_layout, list_layouts
from vlpipe.stores.exchange.row_times import RowTimes, parse_rate
from vlpipe.stores.hdf5_store import Hdf5Store

__all__ = [
    "ExportReport",
    "Hdf5Store",
    "ImportReport",
    "KeyTable",
    "Layout",
    "RowTimes",
    "Slot",
    "export_features",
    "find_layout",
    "import_features",
    "list_layouts",
    "parse_rate",
    "read_key_tables",
]
