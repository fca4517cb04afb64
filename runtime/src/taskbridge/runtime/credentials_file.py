"""What the credentials file says of an app: the edge verifies by it, and reconcile asks DingTalk by it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, model_validator

from taskbridge.runtime.reloaded_file import NotBlank  # noqa: TC001 - pydantic resolves it


def _file_names(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or not all(name.strip() and "\0" not in name for name in names):
        raise ValueError("must name at least one file, and no empty name")
    return names


def _tokens(tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    # What an empty token verifies, anybody can sign.
    if not tokens or not all(token.get_secret_value().strip() for token in tokens):
        raise ValueError("must have at least one token, and no empty token")
    return tokens


Secrets = Annotated[tuple[SecretStr, ...], AfterValidator(_tokens)]
FileNames = Annotated[tuple[str, ...], AfterValidator(_file_names)]


class AppEntry(BaseModel):
    """One app as it stands in the file: the first of its tokens is in force, others are on their way in or out."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    app_type: NotBlank
    corp_id: NotBlank | None = None
    system_tokens: Secrets | None = None
    system_token_files: FileNames | None = None

    @model_validator(mode="after")
    def _has_tokens(self) -> AppEntry:
        if self.system_tokens is None and self.system_token_files is None:
            raise ValueError("system_tokens or system_token_files is required")
        return self
