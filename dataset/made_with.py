"""With which options a folder of results was made, kept in it: what was made with others is not mixed in."""
import json
import os
from typing import Any, Dict, Optional

STAMP = 'made_with.json'


def made_with(folder: str) -> Optional[Dict[str, Any]]:
    """The options, None where the folder says none. ValueError for a file that is damaged."""
    path = os.path.join(folder, STAMP)
    if not os.path.isfile(path):
        return None
    with open(path, encoding='utf-8') as file:
        return json.load(file)


def hold_to(folder: str, chosen: Dict[str, Any]) -> None:
    """Makes the folder and notes the options. ValueError where it was begun with others."""
    before = made_with(folder)
    if before is not None:
        if before != chosen:
            raise ValueError('%s was made with %s, now it is %s: ask for the same, or remove that folder' % (
                folder, _words(before), _words(chosen)))
        return
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, STAMP)
    with open(path + '.part', 'w', encoding='utf-8') as file:
        json.dump(chosen, file)
    os.replace(path + '.part', path)


def _words(options: Dict[str, Any]) -> str:
    return ', '.join('%s %s' % (name.replace('_', ' '), value) for name, value in sorted(options.items()))
