"""Plain data that crosses hooks and extensions.

Extensions never import each other, so the shapes two of them must agree on live here. These are shapes only:
the host itself does nothing with them.
"""

from .chat import *  # noqa: F403
from .completions import *  # noqa: F403
from .downloads import *  # noqa: F403
from .embeddings import *  # noqa: F403
from .generation import *  # noqa: F403
from .inference import *  # noqa: F403
from .messages import *  # noqa: F403
from .models import *  # noqa: F403
from .threads import *  # noqa: F403
from .tools import *  # noqa: F403
