"""The 18 attribute types of keywords (specification section 2)."""

from typing import Final

ATTRIBUTE_TYPES: Final[tuple[str, ...]] = (
    "Entity",
    "Modifier",
    "Brand",
    "Material",
    "Style",
    "Function",
    "Location",
    "Audience",
    "Color",
    "Scene",
    "Specifications",
    "Price",
    "Model",
    "Anchor",
    "Series",
    "Marketing",
    "Season",
    "Pattern",
)
