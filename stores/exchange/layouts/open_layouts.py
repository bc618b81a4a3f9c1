"""Layouts whose slots are named by the user (or found in the file)."""

from vlpipe.stores.exchange.hdf5_padded import Hdf5Padded
from vlpipe.stores.exchange.hdf5_store_file import Hdf5StoreFile
from vlpipe.stores.exchange.hdf5_videos import Hdf5Videos
from vlpipe.stores.exchange.layout import Layout
from vlpipe.stores.exchange.lmdb_values import LmdbValues
from vlpipe.stores.exchange.npy_folder import NpyFolder
from vlpipe.stores.exchange.tar_shards import TarShards

LAYOUTS = (
    Layout(
        "npy",
        "folders of .npy or .npz per video; a place is {key}_rgb.npy or {key}.npz:rgb",
        "NumPy",
        NpyFolder(),
    ),
    Layout(
        "hdf5",
        "HDF5, a dataset per video; a place is FILE.hdf5:/group/{key}",
        "h5py",
        Hdf5Videos(),
    ),
    Layout(
        "hdf5-padded",
        "HDF5, one array (N, T, ...) and /ids; a place is FILE.hdf5:/array",
        "h5py",
        Hdf5Padded(),
    ),
    Layout(
        "lmdb",
        "LMDB values of npy, npz or raw numbers; a place is a key: rgb/{key} (import only)",
        "lmdb",
        LmdbValues(),
    ),
    Layout(
        "webdataset",
        "uncompressed tars of KEY.EXTENSION; a place is an extension: rgb.npy (import only)",
        "webdataset",
        TarShards(),
    ),
    Layout(
        "vlpipe-hdf5",
        "one file with rows, times and provenance; reads like a store, and comes back unchanged",
        "vlpipe",
        Hdf5StoreFile(),
    ),
)
