"""The declaration of the chain stage, which is all that the orchestrator needs to run it."""

from stages.harness.declaration import StageDeclaration
from tests.kill.chain.settings import ChainSettings

STAGE = StageDeclaration(name="chain", settings=ChainSettings, libraries=(), package="tests.kill.chain")
