"""YAML as people write it for us: safe, and a key that is given twice is an error."""

import re
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import yaml

# libyaml's parser is some thirty times as fast, and takes no long time for any text.
if TYPE_CHECKING or not yaml.__with_libyaml__:
    from yaml import SafeLoader
else:
    from yaml import CSafeLoader as SafeLoader


class StrictLoader(SafeLoader):
    """Safe YAML that also reads 5e-4 as a number (YAML 1.1 wants 5.0e-4) and refuses duplicate keys."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value; one that looks like a date or number and is none is an error with its line."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            value = repr(node.value)[:80] if isinstance(node, yaml.ScalarNode) else "a value"
            raise yaml.MarkedYAMLError(problem=f"{value}: {error}", problem_mark=node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are distinct."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # which the loader refuses
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"key '{key}' is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
