"""The browser and the system of a client in a few words, from its User-Agent. Pure.

Only families are kept, no versions: enough for a user to tell own sessions apart, and too little to follow somebody.
The result is one of a fixed set of texts, so nothing of what a client sends is stored or shown.

Tested in tests/domain/test_user_agents.py.
"""

MAX_READ_CHARACTERS = 512  # of a User-Agent; browsers send some 150
MAX_DESCRIPTION_LENGTH = 60  # characters; the column's

# The first that is found counts: most browsers also name those that they are compatible with.
_BROWSERS = (
    *(("Edg", "Edge"), ("OPR/", "Opera"), ("SamsungBrowser/", "Samsung Internet"), ("Vivaldi/", "Vivaldi")),
    *(("Firefox/", "Firefox"), ("FxiOS/", "Firefox"), ("CriOS/", "Chrome"), ("HeadlessChrome/", "Chrome")),
    *(("Chrome/", "Chrome"), ("Safari/", "Safari")),
    *(("UnityPlayer/", "Unity"), ("Godot", "Godot"), ("UnrealEngine/", "Unreal Engine")),
    *(("python-httpx/", "Python"), ("Python", "Python"), ("node", "Node.js"), ("okhttp/", "okhttp"), ("curl/", "curl")),
)
_SYSTEMS = (
    *(("iPhone", "iOS"), ("iPad", "iPadOS"), ("Android", "Android"), ("CrOS", "ChromeOS")),
    *(("Windows", "Windows"), ("Mac OS X", "macOS"), ("Macintosh", "macOS"), ("Linux", "Linux")),
)


def describe(user_agent: str) -> str:
    """For example "Firefox on Linux"; "" when neither is known."""
    text = user_agent[:MAX_READ_CHARACTERS]
    browser = next((name for part, name in _BROWSERS if part in text), "")
    system = next((name for part, name in _SYSTEMS if part in text), "")
    return f"{browser} on {system}" if browser and system else browser or system


assert max(len(f"{browser} on {system}") for _, browser in _BROWSERS for _, system in _SYSTEMS) <= (
    MAX_DESCRIPTION_LENGTH
)
