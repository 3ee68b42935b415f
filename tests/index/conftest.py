import importlib.util
import sys
from pathlib import Path

if "plain_trie" not in sys.modules:  # import-mode=importlib does not put this folder on the path
    spec = importlib.util.spec_from_file_location("plain_trie", Path(__file__).with_name("plain_trie.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["plain_trie"] = module
    spec.loader.exec_module(module)
