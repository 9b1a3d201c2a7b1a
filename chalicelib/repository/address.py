"""What a visitor pastes of a repository, into a source and what to open of it; and a source into what people read.

Every way to write a repository ends at one canonical source, so that its image is built once and an operator's pattern
holds however it was written:

1. Scheme and host are in lower case. User information is refused; fragment and default port are removed.
2. GitHub's and GitLab's addresses, and a Gist's, lose `.git` and their query; GitHub's are in lower case, and a Gist's
   loses its user, which is no part of what it names. Other Git servers may need `.git` and know upper from lower case.
3. A DOI is a DOI however it is linked to. Zenodo's and Figshare's are in lower case.
4. `HEAD` is the default branch, which is written as no version at all.

What is refused is never repeated: it may hold a token. A text is measured before anything else looks at it.

Sources: BinderHub's repoproviders.py and LoadingPage.jsx, repo2docker's contentproviders, git-check-ref-format(1), and
for a DOI's characters https://www.crossref.org/blog/dois-and-matching-regular-expressions/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

from chalicelib.repository.source import Provider, Source
from chalicelib.text import is_visible

ADDRESS_LENGTH: Final = 2000  # characters, as are the next ones
REF_LENGTH: Final = 250
PATH_LENGTH: Final = 200  # of a folder, and of a path below the work directory
URL_PATH_LENGTH: Final = 500
NAME_LENGTH: Final = 63  # of a notebook's name
CONTENT_FOLDER_LENGTH: Final = 64
_HASH_LENGTH: Final = 8  # hexadecimal digits that tell long names apart

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:", re.ASCII)
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"({_LABEL}(?:\.{_LABEL})*)\.?(?::([0-9]{{1,5}}))?", re.ASCII)
_OWNER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", re.ASCII)
_PROJECT: Final = re.compile(r"(?=.*[A-Za-z0-9_-])[A-Za-z0-9._][A-Za-z0-9._-]{0,254}", re.ASCII)
_GIST: Final = re.compile(r"[0-9]{1,9}|[0-9a-f]{20}|[0-9a-f]{32}", re.ASCII)
_COMMIT: Final = re.compile(r"[0-9a-f]{40}", re.ASCII)
_RECORD: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
_ARTICLE: Final = re.compile(r"articles/(?:[^/]+/){1,2}([0-9]{4,12})(?:/([0-9]{1,3}))?", re.ASCII)
_DOI: Final = re.compile(r"10\.[0-9]{4,9}/[A-Za-z0-9._;()/:-]{1,200}", re.ASCII)
_DOI_LINK: Final = re.compile(r"\A(?:https://(?:dx\.)?doi\.org/|doi:)", re.ASCII | re.IGNORECASE)
_RESOURCE: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_DATASET: Final = re.compile(r"[a-z0-9_-]{2,100}", re.ASCII)
_ACTIVITY: Final = re.compile(r"[0-9a-f-]{36}", re.ASCII)
_DOT_GIT: Final = re.compile(r"\.git\Z", re.ASCII | re.IGNORECASE)
_NO_REF: Final = re.compile(r"[\x00-\x20~^:?*\[\\\x7f]|\.\.|//|@\{|(?:^|/)\.|\.lock(?:/|\Z)|^[-/]|[./]\Z|^@\Z")
_LINK: Final = re.compile(
    rf"(?:https?://)?[^/?#@]+/(?:binder/)?v2/({'|'.join(Provider)})/([^?#]*)\??([^#]*)(?:#.*)?",
    re.ASCII | re.IGNORECASE,
)

_SAFE: Final = "!$&'()*+,;=:@~"  # what RFC 3986 has stand for itself in a part of a path
_ALIASES: Final[Mapping[str, str]] = {
    "www.github.com": "github.com",
    "www.gitlab.com": "gitlab.com",
    "www.zenodo.org": "zenodo.org",
    "www.figshare.com": "figshare.com",
    "hydroshare.org": "www.hydroshare.org",
    "dx.doi.org": "doi.org",
    "www.doi.org": "doi.org",
}
_DOI_PROVIDERS: Final = (Provider.ZENODO, Provider.FIGSHARE, Provider.DATAVERSE)
_ZENODO_PREFIXES: Final = ("10.5281/", "10.22002/")  # CaltechDATA runs Zenodo's software, and is built as it is
_HYDROSHARE_PREFIX: Final = "10.4211/hs."
_DEFAULT_BRANCH: Final = ("", "HEAD")
_LATEST_GIST: Final = (*_DEFAULT_BRANCH, "main", "master")  # a Gist has one branch; BinderHub takes any of these for it
_TREES: Final = ("lab/tree/", "doc/tree/", "notebooks/", "tree/")  # a path below the work directory is behind these

_LONG_ADDRESS: Final = f"is too long: at most {ADDRESS_LENGTH:,} characters are allowed"
_ADDRESS: Final = "must be a repository's address such as https://github.com/owner/name, owner/name, or a DOI"
_PRIVATE: Final = (
    "must be the https address of a public repository, without a user name or a token in it: private repositories and "
    "SSH are not supported yet"
)
_UNENCRYPTED: Final = "must begin with https://, not with http://: others could alter what is fetched on its way"
_OTHER_PAGE: Final = "must be the address of the repository itself, or of a branch, folder or file in it"
_HOST_NAME: Final = "must have a valid host name; write one with other letters than a-z in its punycode form, xn--…"
_BAD_PATH: Final = "must not have “..”, “\\” or control characters in its path"
_GIST_ADDRESS: Final = "must be a Gist's address such as https://gist.github.com/user/id, or that of one of its commits"
_QUERY: Final = "must be an address without “?” and what is behind it"
_RECORD_ADDRESS: Final = "must be the address of one record or article; its DOI is the surest"
_OPEN: Final = (
    f"must be a path below the work directory, such as lessons/first.ipynb, of at most {PATH_LENGTH} characters, or a "
    "path of the notebook's server, such as /rstudio/"
)
_URL_PATH: Final = (
    f"must be a path of the notebook's server, such as /rstudio/: at most {URL_PATH_LENGTH} characters, without “//”, "
    "“..”, “\\”, “@” or “#”, and not below /.homeport"
)
_FOLDER: Final = f"must be a folder in the repository, such as course/binder, of at most {PATH_LENGTH} characters"
_REF: Final = f"must be a branch, a tag or a commit, as Git writes them, of at most {REF_LENGTH} characters"


@dataclass(frozen=True, slots=True)
class Asked:
    """A repository as it was asked for, and what to open of it: a path in it, or a path of the notebook's server."""

    source: Source
    open_path: str = ""


@dataclass(frozen=True, slots=True)
class _Web:
    """A web address: its host, with its port if it is not the default one, the decoded parts of its path, its query."""

    host: str
    parts: tuple[str, ...]
    query: Mapping[str, str]

    def address(self, parts: Sequence[str]) -> str:
        """The canonical address of other parts at this host; raises ValueError if it is too long."""
        address = "/".join((f"https://{self.host}", *(quote(part, safe=_SAFE) for part in parts)))
        if len(address) > ADDRESS_LENGTH:
            raise ValueError(_LONG_ADDRESS)
        return address


def parse_repository(text: str) -> Asked:
    """Read what was pasted of a repository; raises ValueError, whose text completes "The field “repo” …"."""
    text = _measured(text)
    link = _LINK.fullmatch(text)
    return _binder(link[1].lower(), link[2], first_of_each(link[3])) if link else _pasted(text)


def moved(source: Source, address: str) -> Source:
    """The repository at the address to which its site leads by now: a Git server's, if it is no other provider's."""
    try:
        found = parse_repository(address).source
    except ValueError:
        found = Source(Provider.GIT, address)
    return replace(source, provider=found.provider, address=found.address)


def parse_ref(text: str) -> str:
    """Check a branch, a tag or a commit as git-check-ref-format(1) does; raises ValueError."""
    if len(text) > REF_LENGTH or not text or not is_visible(text) or _NO_REF.search(text):
        raise ValueError(_REF)
    return text


def parse_folder(text: str) -> str:
    """A folder in a repository, without what says nothing in it (`./a//b/` is `a/b`); raises ValueError."""
    folder = _relative(text, _FOLDER)
    if folder.startswith("-"):
        raise ValueError(_FOLDER)
    return folder


def parse_open(text: str) -> str:
    """What to open: a path below the work directory, or with a `/` before it a path of the notebook's server.

    The latter may have a query, and comes percent-encoded as far as a header needs it. Raises ValueError.
    """
    if not text.startswith("/"):
        return _relative(text, _OPEN)
    if len(text) > URL_PATH_LENGTH or "#" in text:
        raise ValueError(_URL_PATH)
    url_path = quote(text, safe=f"{_SAFE}/?%[]", errors="replace")
    decoded, _, query = text.partition("?")
    astray = len(url_path) > URL_PATH_LENGTH or "\\" in query or not is_visible(unquote(query))
    while not astray and decoded != (again := unquote(decoded)):  # something before the server may decode once more
        astray, decoded = _leads_astray(decoded), again
    if astray or _leads_astray(decoded):
        raise ValueError(_URL_PATH)
    return url_path


def _leads_astray(path: str) -> bool:
    parts = path.split("/")
    forbidden = "//" in path or "@" in path or "\\" in path or "." in parts or ".." in parts
    return forbidden or not is_visible(path) or path.lower().startswith("/.homeport")


def parse_spec(provider: str, spec: str) -> Source:
    """The repository that a Binder link names behind `/v2/<provider>/`; raises ValueError.

    It may have been decoded on its way: `git/https://host/x/ref` is read as well as `git/https%3A%2F%2Fhost%2Fx/ref`.
    """
    if provider not in list(Provider):
        raise ValueError(f"must be for one of {', '.join(Provider)}")
    spec = _measured(spec).strip("/")
    match Provider(provider):
        case Provider.GITHUB:
            owner, name, ref = (*spec.split("/", 2), "", "")[:3]
            return at_version(_github((_unquoted(owner), _unquoted(name))).source, _unquoted(ref))
        case Provider.GIST:
            user, gist, ref = (*spec.split("/", 2), "", "")[:3]
            return at_version(_gist((user, _unquoted(gist))).source, "" if ref in _LATEST_GIST else _unquoted(ref))
        case Provider.GITLAB | Provider.GIT as git:
            return at_version(*_git_spec(git, spec))
        case Provider.HYDROSHARE:
            if resource := _RESOURCE.search(spec):
                return _resource(resource[0])
        case Provider.CKAN:
            if (data_set := _pasted(restored(spec)).source).provider is Provider.CKAN:
                return data_set
        case doi_provider:
            return _doi(_unquoted(restored(spec)), doi_provider)
    raise ValueError(_RECORD_ADDRESS)


def at_version(source: Source, ref: str) -> Source:
    """A repository at a version that is as it was typed; raises ValueError."""
    if ref in _DEFAULT_BRANCH:
        return source
    if not source.takes_ref:
        raise ValueError("must have no version of its own: the address of what is no Git repository says it")
    try:
        return replace(source, ref=parse_ref(ref))
    except ValueError as error:
        raise ValueError(f"has a version that {error}") from None


def restored(address: str) -> str:
    """An address as it was before it was encoded, once or more often, and before a `/` of its scheme was lost."""
    for _ in range(3):
        if "%2f" in address.lower():
            address = _unquoted(address)
    return re.sub(r"\Ahttps:/+", "https://", address, flags=re.IGNORECASE)


def opened(query: Mapping[str, str]) -> str:
    """What a Binder link's query opens: `labpath` before `filepath` before `urlpath`, as BinderHub has it.

    Raises ValueError.
    """
    for name in ("labpath", "filepath"):
        if path := query.get(name, "").strip("/"):
            return _to_open(path)
    return opened_url(query.get("urlpath", ""))


def opened_url(url_path: str) -> str:
    """What a path of the notebook's server opens, below the work directory if it can be; raises ValueError."""
    path, mark, query = url_path.partition("#")[0].partition("?")
    path = re.sub("/+", "/", path).lstrip("/")
    if not mark and path.rstrip("/") in ("", "lab"):
        return ""
    for tree in _TREES:
        if not mark and f"{path}/".startswith(tree):
            return _to_open(_unquoted(path[len(tree) :]).strip("/"))
    return _to_open(f"/{path}{mark}{query}")


def first_of_each(query: str) -> Mapping[str, str]:
    """A query's values, decoded; of a name that appears more than once the first one, as in BinderHub."""
    return dict(reversed(parse_qsl(query)))


def shown(source: Source) -> str:
    """A short name for pages: `owner/name` is GitHub's, and any other says where it is."""
    match source.provider:
        case Provider.GITHUB:
            return source.address.removeprefix("https://github.com/")
        case Provider.GIST | Provider.HYDROSHARE:
            return f"{source.provider}/{source.address.rpartition('/')[2]}"
        case _:
            return source.address.removeprefix("https://").removesuffix(".git")


def written(source: Source) -> str:
    """The shortest text that `parse_repository` reads as this repository; version and folder are not in it."""
    if source.provider is Provider.GITHUB:
        return shown(source)
    if source.provider in _DOI_PROVIDERS and _doi(source.address).provider is not source.provider:
        return f"{source.provider}/{source.address}"
    return source.address


def web_address(source: Source) -> str:
    """Where a person reads it, at its version if that has an address."""
    if source.provider in _DOI_PROVIDERS:
        return f"https://doi.org/{source.address}"
    tree = {Provider.GITHUB: "tree", Provider.GITLAB: "-/tree"}.get(source.provider)
    if tree is None or not (source.ref or source.folder):
        return source.address
    parts = (source.address, tree, quote(source.ref or "HEAD", safe=""), quote(source.folder))
    return "/".join(filter(None, parts))


def suggested_name(source: Source) -> str:
    """What its notebook is called if the visitor does not say it: no two repositories share one."""
    name = shown(source)
    if len(name) <= NAME_LENGTH:
        return name
    told_apart = sha256(name.encode()).hexdigest()[:_HASH_LENGTH]
    return f"{name[: NAME_LENGTH - _HASH_LENGTH - 1]}-{told_apart}"


def content_folder(source: Source) -> str:
    """The folder of the work directory that the files of a content repository go into."""
    last = unquote(source.address.rpartition("/")[2]).removesuffix(".git")
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", last, flags=re.ASCII).lstrip(".-")
    return plain[:CONTENT_FOLDER_LENGTH] or "repository"


# ── what is pasted, by where it is ───────────────────────────────────────────────────────────────────────────────────


def _measured(text: str) -> str:
    if len(text) > ADDRESS_LENGTH:
        raise ValueError(_LONG_ADDRESS)
    text = text.strip(" ")
    if not is_visible(text):
        raise ValueError("contains a control or invisible character; type the address again")
    if not text or " " in text or "\\" in text or text.startswith("-"):
        raise ValueError(_ADDRESS)
    return text


def _binder(provider: str, spec: str, query: Mapping[str, str]) -> Asked:
    if query.get("urlpath", "").lstrip("/").startswith("git-pull"):
        raise ValueError("is a link of two repositories: open it at this hub, with this hub's address before /v2/")
    return Asked(parse_spec(provider, spec), opened(query))


def _pasted(text: str) -> Asked:
    """Whatever is no Binder link."""
    head, slash, rest = text.partition("/")
    if text.lower().startswith("https://"):
        return _from_web(text)
    if text.lower().startswith("doi:") or _DOI.fullmatch(text):
        return Asked(_doi(text))
    if head in _DOI_PROVIDERS and _DOI.fullmatch(rest):
        return Asked(_doi(rest, Provider(head)))
    _check_scheme(text, head)
    if slash and "." in head:  # a browser's address bar hides the scheme
        return _from_web(f"https://{text}")
    if text.count("/") != 1:
        raise ValueError(_ADDRESS)
    return _github((head, rest))


def _check_scheme(text: str, head: str) -> None:
    """Say what is wrong with an address that is no https address."""
    if text.lower().startswith("http://"):
        raise ValueError(_PRIVATE if "@" in text.split("/")[2] else _UNENCRYPTED)
    if "@" in head or text.lower().startswith(("ssh:", "git+ssh:")):
        raise ValueError(_PRIVATE)
    if _SCHEME.match(text):
        raise ValueError("must begin with https://; other kinds of address are not supported")


def _from_web(text: str) -> Asked:
    web = _split(text)
    match web.host:
        case "github.com":
            return _github(web.parts)
        case "gist.github.com":
            return _gist(web.parts)
        case "gitlab.com":
            return _gitlab(web.parts)
        case "doi.org":
            return Asked(_doi("/".join(web.parts)))
        case "zenodo.org":
            return Asked(_zenodo(web.parts))
        case "www.hydroshare.org":
            return Asked(_hydroshare(web.parts))
        case host if host == "figshare.com" or host.endswith(".figshare.com"):
            return Asked(_figshare(web))
        case _:
            return _elsewhere(web)


def _split(text: str) -> _Web:
    address = text.partition("#")[0][len("https://") :]
    address, _, query = address.partition("?")
    authority, _, path = address.partition("/")
    if "@" in authority:
        raise ValueError(_PRIVATE)
    found = _HOST.fullmatch(authority.lower()) if authority.isascii() else None
    if found is None or len(found[1]) > 253 or not 0 < int(found[2] or 443) < 1 << 16:
        raise ValueError(_HOST_NAME)
    host, port = _ALIASES.get(found[1], found[1]), int(found[2] or 443)
    parts = tuple(_part(raw) for raw in path.split("/") if raw)
    return _Web(host if port == 443 else f"{host}:{port}", parts, first_of_each(query))


def _part(raw: str) -> str:
    part = _unquoted(raw)
    inner = part.split("/")
    if not is_visible(part) or "\\" in part or "." in inner or ".." in inner:
        raise ValueError(_BAD_PATH)
    return part


def _unquoted(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("must be percent-encoded as UTF-8") from None


def _without_git(name: str) -> str:
    return _DOT_GIT.sub("", name)


def _github(parts: Sequence[str]) -> Asked:
    match parts:
        case (owner, name, *page) if _OWNER.fullmatch(owner) and _PROJECT.fullmatch(project := _without_git(name)):
            address = f"https://github.com/{owner.lower()}/{project.lower()}"
            return _versioned(Source(Provider.GITHUB, address), page)
    raise ValueError(_ADDRESS)


def _gist(parts: Sequence[str]) -> Asked:
    match parts:
        case (gist,) | (_, gist):
            ref = ""
        case (_, gist, ref) if _COMMIT.fullmatch(ref):
            pass
        case _:
            raise ValueError(_GIST_ADDRESS)
    gist = _without_git(gist).lower()
    if not _GIST.fullmatch(gist):
        raise ValueError(_GIST_ADDRESS)
    return Asked(Source(Provider.GIST, f"https://gist.github.com/{gist}", ref))


def _gitlab(parts: Sequence[str]) -> Asked:
    project, page = _cut(parts)
    project = (*project[:-1], *map(_without_git, project[-1:]))
    if len(project) < 2 or not all(map(_PROJECT.fullmatch, project)):
        raise ValueError("must be the address of a project, such as https://gitlab.com/group/project")
    return _versioned(Source(Provider.GITLAB, "/".join(("https://gitlab.com", *project))), page)


def _cut(parts: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """A GitLab project's name, and its page: behind `-`, or as it was before GitLab 12."""
    for at, part in enumerate(parts):
        if part == "-":
            return parts[:at], parts[at + 1 :]
        if at > 1 and part in ("tree", "blob"):
            return parts[:at], parts[at:]
    return parts, ()


def _zenodo(parts: Sequence[str]) -> Source:
    match parts:
        case ("record" | "records", record, *_) if _RECORD.fullmatch(record):
            return _doi(f"10.5281/zenodo.{record}")
        case ("doi", *doi):
            return _doi("/".join(doi))
    raise ValueError(_RECORD_ADDRESS)


def _figshare(web: _Web) -> Source:
    found = _ARTICLE.fullmatch("/".join(web.parts))
    if found is None or web.host != "figshare.com":  # an institution's articles have DOIs of its own
        raise ValueError(_RECORD_ADDRESS)
    return _doi(f"10.6084/m9.figshare.{found[1]}" + (f".v{found[2]}" if found[2] else ""))


def _hydroshare(parts: Sequence[str]) -> Source:
    match parts:
        case ("resource", resource, *_) if _RESOURCE.fullmatch(resource):
            return _resource(resource)
    raise ValueError(_RECORD_ADDRESS)


def _resource(resource: str) -> Source:
    return Source(Provider.HYDROSHARE, f"https://www.hydroshare.org/resource/{resource}")


def _doi(text: str, told: Provider = Provider.DATAVERSE) -> Source:
    """A DOI's record; whose it is when its prefix does not say so is told, and else a Dataverse's, who have many."""
    doi = _DOI_LINK.sub("", text).strip("/")
    if not _DOI.fullmatch(doi) or any(part in ("", ".", "..") for part in doi.split("/")):
        raise ValueError("must be a DOI such as 10.5281/zenodo.3242074")
    lower = doi.lower()
    if lower.startswith(_HYDROSHARE_PREFIX) and _RESOURCE.fullmatch(lower[len(_HYDROSHARE_PREFIX) :]):
        return _resource(lower[len(_HYDROSHARE_PREFIX) :])
    if lower.startswith(_ZENODO_PREFIXES):
        told = Provider.ZENODO
    elif "figshare" in lower:
        told = Provider.FIGSHARE
    return Source(told, doi if told is Provider.DATAVERSE else lower)


def _elsewhere(web: _Web) -> Asked:
    """A repository of a Git server, or a data set of Dataverse's or CKAN's; GitLab's and Forgejo's pages are known."""
    if "-" in web.parts:
        return _git(web, *_cut(web.parts))
    if web.parts[2:3] == ("src",) and web.parts[3:4] in (("branch",), ("tag",), ("commit",)):
        return _git(web, web.parts[:2], ("tree", *web.parts[4:]))
    if "persistentId" in web.query:
        return Asked(_doi(web.query["persistentId"]))
    if "dataset" in web.parts[:-1] and _DATASET.fullmatch(web.parts[(at := web.parts.index("dataset") + 1)]):
        activity = web.query.get("activity_id", "")
        version = f"?activity_id={activity}" if _ACTIVITY.fullmatch(activity) else ""
        return Asked(Source(Provider.CKAN, web.address(web.parts[: at + 1]) + version))
    if web.query:
        raise ValueError(_QUERY)
    return _git(web, web.parts, ())


def _git(web: _Web, repository: Sequence[str], page: Sequence[str]) -> Asked:
    if not repository:
        raise ValueError(_ADDRESS)
    return _versioned(Source(Provider.GIT, web.address(repository)), page)


def _versioned(source: Source, page: Sequence[str]) -> Asked:
    """A repository at the version, and with the folder or file to open, of a page of its site.

    A branch's name may have slashes in it, and where it ends cannot be known from the address: only the first part is
    taken, which is all of it if its slashes are percent-encoded.
    """
    match page:
        case ():
            return Asked(source)
        case ("tree" | "blob" | "commit", ref, *path):
            return Asked(at_version(source, ref), _to_open("/".join(path)))
        case ("releases", "tag", ref) | ("tags", ref):
            return Asked(at_version(source, ref))
    raise ValueError(_OTHER_PAGE)


def _git_spec(provider: Provider, spec: str) -> tuple[Source, str]:
    """Repository and version of `<percent-encoded address>/<version>`, which may have been decoded."""
    address, _, ref = spec.partition("/")
    if "%2f" not in address.lower():
        address, dot_git, ref = spec.partition(".git/")
        if dot_git:
            address += ".git"
        else:  # nothing says where the version begins, so it is the last part
            address, _, ref = spec.rpartition("/")
    address = restored(address)
    if provider is Provider.GITLAB and not address.lower().startswith("https:"):
        source = _gitlab(address.split("/")).source
    else:
        source = _pasted(address).source
    if not source.takes_ref:
        raise ValueError("must be for a Git repository; if it is one, add .git to its address")
    return source, _unquoted(ref)


def _to_open(path: str) -> str:
    try:
        return parse_open(path)
    except ValueError as error:
        raise ValueError(f"has something to open that {error}") from None


def _relative(text: str, refusal: str) -> str:
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if len(text) > PATH_LENGTH or text.startswith("/") or "\\" in text or ".." in parts or not is_visible(text):
        raise ValueError(refusal)
    return "/".join(parts)
