"""Settings of the report stage."""

from stages.harness.settings import StageSettings, identity


class ReportSettings(StageSettings):
    """What the report shows."""

    title: str | None = identity(None)
    """Heading; None takes the pipeline's name."""
    transcripts: int = identity(2, ge=0)
    """Right and wrong answers shown for each benchmark and checkpoint, of each this many."""
    transcript_characters: int = identity(1500, gt=0)
    """A longer prompt or completion is cut in the middle, with a note of how much is left out."""
