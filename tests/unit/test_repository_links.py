"""Links that launch: Binder's as authors have written them, with two repositories in one, and the hub's own.

Most links are those of public repositories' README files and pages, as they were found.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.repository.address import parse_folder, parse_open, parse_ref, parse_repository
from chalicelib.repository.links import Link, launch_query, parse_link
from chalicelib.repository.source import Provider, Source

COMMIT = "72d3a17295b091c74cd57fc5647e9e91dcfc5e51"


def github(name: str, ref: str = "") -> Source:
    return Source(Provider.GITHUB, f"https://github.com/{name}", ref)


def gitlab(name: str, ref: str = "") -> Source:
    return Source(Provider.GITLAB, f"https://gitlab.com/{name}", ref)


def git(address: str, ref: str = "") -> Source:
    return Source(Provider.GIT, f"https://{address}", ref)


def gist(name: str, ref: str = "") -> Source:
    return Source(Provider.GIST, f"https://gist.github.com/{name}", ref)


def record(provider: Provider, doi: str) -> Source:
    return Source(provider, doi)


def followed(link: str, *, decoded: bool = False) -> Link:
    """Read a link, from `v2/` on, as a function behind a gateway is given it."""
    parts = urlsplit(f"/v2/{link}")
    query = dict(reversed(parse_qsl(parts.query)))
    return parse_link(unquote(parts.path) if decoded else parts.path, query)


LINKS = [
    ("gh/Ricardo-Luis/ioplutonotebooks/HEAD", Link(github("ricardo-luis/ioplutonotebooks"))),
    ("gh/ulf/flexion/master?urlpath=lab", Link(github("ulf/flexion", "master"))),
    ("gh/tsutterley/read-GRACE-harmonics/main?urlpath=lab/", Link(github("tsutterley/read-grace-harmonics", "main"))),
    ("gh/Apian-Framework/Jupyter-Notebooks/main?labpath=HashCommitReveal.ipynb",
     Link(github("apian-framework/jupyter-notebooks", "main"), open_path="HashCommitReveal.ipynb")),
    ("gh/codecheckers/codecheck-py/main?labpath=.codecheck/codecheck.ipynb",
     Link(github("codecheckers/codecheck-py", "main"), open_path=".codecheck/codecheck.ipynb")),
    ("gh/OpenMined/JavaDP/master/?filepath=%2Fdoc%2Fclojure",
     Link(github("openmined/javadp", "master"), open_path="doc/clojure")),
    ("gh/redhat-naps-da/data-science-notebooks/main?filepath=scipy%2F01-py-slicer.ipynb",
     Link(github("redhat-naps-da/data-science-notebooks", "main"), open_path="scipy/01-py-slicer.ipynb")),
    ("gh/linogaliana/python-datascientist/pandas_intro?filepath=/static/notebooks/numpy.ipynb",
     Link(github("linogaliana/python-datascientist", "pandas_intro"), open_path="static/notebooks/numpy.ipynb")),
    ("gh/MUSA-620-Spring-2019/final-project-lin-wang-yuan/master?urlpath=final.ipynb",
     Link(github("musa-620-spring-2019/final-project-lin-wang-yuan", "master"), open_path="/final.ipynb")),
    ("gh/euroargodev/argodmqc_owc/master?urlpath=lab/tree/docs/Usage.ipynb",
     Link(github("euroargodev/argodmqc_owc", "master"), open_path="docs/Usage.ipynb")),
    ("gh/ngs-docs/2020-ggg-201b-rnaseq/stable?urlpath=rstudio",
     Link(github("ngs-docs/2020-ggg-201b-rnaseq", "stable"), open_path="/rstudio")),
    ("gh/ideonate/voila-materialstream/master?urlpath=voila",
     Link(github("ideonate/voila-materialstream", "master"), open_path="/voila")),
    ("gh/lheagy/ubc-jupyterdays-2020-widgets/master?urlpath=voila%2Frender%2F2-voila.ipynb",
     Link(github("lheagy/ubc-jupyterdays-2020-widgets", "master"), open_path="/voila/render/2-voila.ipynb")),
    ("gh/zolabar/trendPy/experimental?urlpath=voila%2Frender%2F/trendpy_webapp.ipynb",
     Link(github("zolabar/trendpy", "experimental"), open_path="/voila/render/trendpy_webapp.ipynb")),
    ("gh/andrewhinh/CheXRay-v2/HEAD?urlpath=voila%2Frender%2Fproduction.ipynb?voila-theme=dark",
     Link(github("andrewhinh/chexray-v2"), open_path="/voila/render/production.ipynb?voila-theme=dark")),
    ("gh/fanomezanaalex-arch/REPO/main?urlpath=voila/render/Helmholtz_Interactiver l'impédance1.ipynb",
     Link(github("fanomezanaalex-arch/repo", "main"),
          open_path="/voila/render/Helmholtz_Interactiver%20l'imp%C3%A9dance1.ipynb")),
    ("gh/binder-examples/r/main?urlpath=shiny/bus-dashboard/",
     Link(github("binder-examples/r", "main"), open_path="/shiny/bus-dashboard/")),
    ("gh/binder-examples/conda/HEAD?filepath=index.ipynb",
     Link(github("binder-examples/conda"), open_path="index.ipynb")),
    ("gh/jupyterlab/jupyterlab-demo/HEAD?urlpath=lab/tree/demo",
     Link(github("jupyterlab/jupyterlab-demo"), open_path="demo")),
    ("gh/u/r/main?urlpath=%2Fnotebooks%2Findex.ipynb%23Part-2", Link(github("u/r", "main"), open_path="index.ipynb")),
    ("gh/u/r/main?urlpath=tree", Link(github("u/r", "main"))),
    ("gh/u/r/main?urlpath=lab/tree/F%2523%20notes.ipynb", Link(github("u/r", "main"), open_path="F# notes.ipynb")),
    ("gh/u/r/main?urlpath=lab%3Freset", Link(github("u/r", "main"), open_path="/lab?reset")),
    ("gh/u/r/main?labpath=a.ipynb&filepath=b.ipynb&urlpath=rstudio", Link(github("u/r", "main"), open_path="a.ipynb")),
    ("gh/u/r/main?labpath=&filepath=b/&urlpath=rstudio", Link(github("u/r", "main"), open_path="b")),
    ("gh/u/r/feature/x", Link(github("u/r", "feature/x"))),
    ("gh/u/r/feature%2Fx", Link(github("u/r", "feature/x"))),
    ("gh/u/r", Link(github("u/r"))),
    ("gh/pangeo-data/pangeo-docker-images.git/2022.09.21",
     Link(github("pangeo-data/pangeo-docker-images", "2022.09.21"))),
    ("gl/genomorro%2Funir/PC-A3", Link(gitlab("genomorro/unir", "PC-A3"))),
    ("gl/eic%2Fescalate%2Fworkspace/master", Link(gitlab("eic/escalate/workspace", "master"))),
    ("gl/signalytics%2Fsignalyzer/main?labpath=notebooks",
     Link(gitlab("signalytics/signalyzer", "main"), open_path="notebooks")),
    ("gl/https%3A%2F%2Fgitlab.com%2Fgenomorro%2Ftic-iner/registro-io",
     Link(gitlab("genomorro/tic-iner", "registro-io"))),
    ("gl/klb2%2Freliability-bounds-dependent-fading-channels/master?filepath=Outage%20Capacity%20Rayleigh%20Channel.ipynb",
     Link(gitlab("klb2/reliability-bounds-dependent-fading-channels", "master"),
          open_path="Outage Capacity Rayleigh Channel.ipynb")),
    (f"gl/cracklet%2Ftutorials/{COMMIT}?filepath=supershear%2Fsupershear.ipynb",
     Link(gitlab("cracklet/tutorials", COMMIT), open_path="supershear/supershear.ipynb")),
    ("git/https%3A%2F%2Fgithub.com%2Fscottlevie97%2FpythonFVSolidMechanics/new-release?labpath=lesson_notebooks",
     Link(github("scottlevie97/pythonfvsolidmechanics", "new-release"), open_path="lesson_notebooks")),
    ("git/https%3A%2F%2Fgitlab.vtt.fi%2Fttemth%2Fgdsfactory-vtt-public-pdk/HEAD",
     Link(git("gitlab.vtt.fi/ttemth/gdsfactory-vtt-public-pdk"))),
    ("git/https%3A%2F%2Fgitlab.multiscale.utah.edu%2Fcommon%2FPCAfold/master?filepath=docs%2Ftutorials%2F",
     Link(git("gitlab.multiscale.utah.edu/common/PCAfold", "master"), open_path="docs/tutorials")),
    ("git/https%3A%2F%2Fgitlab.irstea.fr%2FHYCAR-Hydro%2Fevalhyd%2Fevalhyd-notebooks%2Fpython/HEAD?filepath=evalhyd-python.ipynb",
     Link(git("gitlab.irstea.fr/HYCAR-Hydro/evalhyd/evalhyd-notebooks/python"), open_path="evalhyd-python.ipynb")),
    ("git/https%3A%2F%2Fgit.example.org%2Fdata.git/v1", Link(git("git.example.org/data.git", "v1"))),
    ("gist/rcassani/a472b922fc4accb3e9551f3f16dedb76/master", Link(gist("a472b922fc4accb3e9551f3f16dedb76"))),
    ("gist/jonasbb/18b9aece4c17f617b1c2b3946d29eeb0/HEAD?filepath=serde-with-demo.ipynb",
     Link(gist("18b9aece4c17f617b1c2b3946d29eeb0"), open_path="serde-with-demo.ipynb")),
    ("gist/arsilva87/59d2a78666cf13ab8fb60bafaf7e65b8/HEAD?urlpath=shiny",
     Link(gist("59d2a78666cf13ab8fb60bafaf7e65b8"), open_path="/shiny")),
    ("gist/SimonBoothroyd/2405bd7d15c2908227ad42bfe3a79064#file-how-to-build-a-force-field-ipynb/HEAD?filepath=x.ipynb",
     Link(gist("2405bd7d15c2908227ad42bfe3a79064"))),
    (f"gist/parente/41a13f4c8fa6165d345cc7703be291a3/{COMMIT}", Link(gist("41a13f4c8fa6165d345cc7703be291a3", COMMIT))),
    ("zenodo/10.5281/zenodo.3242074", Link(record(Provider.ZENODO, "10.5281/zenodo.3242074"))),
    ("zenodo/10.5281/zenodo.10208365/?labpath=wedock.ipynb",
     Link(record(Provider.ZENODO, "10.5281/zenodo.10208365"), open_path="wedock.ipynb")),
    ("zenodo/10.5281%2Fzenodo.3543808/", Link(record(Provider.ZENODO, "10.5281/zenodo.3543808"))),
    ("figshare/10.6084/m9.figshare.9782777.v1", Link(record(Provider.FIGSHARE, "10.6084/m9.figshare.9782777.v1"))),
    ("figshare/10.25378/janelia.123", Link(record(Provider.FIGSHARE, "10.25378/janelia.123"))),
    ("dataverse/10.7910/DVN/TJCLKP/", Link(record(Provider.DATAVERSE, "10.7910/DVN/TJCLKP"))),
    ("dataverse/10.18130/V3/AAFY8N/", Link(record(Provider.DATAVERSE, "10.18130/V3/AAFY8N"))),
    ("hydroshare/b8f6eae9d89241cf8b5904033460af61",
     Link(Source(Provider.HYDROSHARE, "https://www.hydroshare.org/resource/b8f6eae9d89241cf8b5904033460af61"))),
    ("hydroshare/https%3A%2F%2Fwww.hydroshare.org%2Fresource%2Fb8f6eae9d89241cf8b5904033460af61%2F",
     Link(Source(Provider.HYDROSHARE, "https://www.hydroshare.org/resource/b8f6eae9d89241cf8b5904033460af61"))),
    ("ckan/https%3A%2F%2Fdemo.ckan.org%2Fdataset%2Fsample-dataset-1",
     Link(Source(Provider.CKAN, "https://demo.ckan.org/dataset/sample-dataset-1"))),
    # two repositories in one link
    ("gh/ploomber/binder-env/main?urlpath=git-pull%3Frepo%3Dhttps%253A%252F%252Fgithub.com%252Fploomber%252Fprojects"
     "%26urlpath%3Dlab%252Ftree%252Fprojects%252Fguides/spec-api-python%252FREADME.ipynb%26branch%3Dmaster",
     Link(github("ploomber/binder-env", "main"), "", github("ploomber/projects", "master"),
          "projects/guides/spec-api-python/README.ipynb")),
    ("gh/pangeo-data/pangeo-docker-images.git/2022.09.21?urlpath=git-pull%3Frepo%3Dhttps%253A%252F%252Fgithub.com"
     "%252Faandishah%252Frces-final-project"
     "%26urlpath%3Dlab%252Ftree%252Frces-final-project%252FASamara_Final_Project.ipynb"
     "%26branch%3Dmain",
     Link(github("pangeo-data/pangeo-docker-images", "2022.09.21"), "", github("aandishah/rces-final-project", "main"),
          "rces-final-project/ASamara_Final_Project.ipynb")),
    ("gh/theia-dev/Qiber3D_jupyter/main?urlpath=git-pull%3Frepo%3Dhttps%253A%252F%252Fgithub.com%252Ftheia-dev%252FQiber3D"
     "%26urlpath%3Dtree%252FQiber3D%252Fdocs%252Fjupyter%252Findex.ipynb",
     Link(github("theia-dev/qiber3d_jupyter", "main"), "",
          github("theia-dev/qiber3d"), "qiber3d/docs/jupyter/index.ipynb")),
    ("gh/jupyter-java/jupyter-java-binder/jbang?urlpath=git-pull%3Frepo%3Dhttps%253A%252F%252Fgithub.com%252Fjbangdev"
     "%252Fjbang-jupyter-examples%26urlpath%3Dlab%252Ftree%252Fcontent%252F%26branch%3Dmain%26targetPath%3Dcontent",
     Link(github("jupyter-java/jupyter-java-binder", "jbang"), "", github("jbangdev/jbang-jupyter-examples", "main"),
          "jbang-jupyter-examples")),
    ("gh/oceanhackweek/ohw20-proj-marine-heat-waves/master?urlpath=git-pull?repo=https://github.com/oceanhackweek/"
     "ohw20-proj-marine-heat-waves%26amp%3Burlpath=lab/tree/ohw20-proj-marine-heat-waves",
     Link(github("oceanhackweek/ohw20-proj-marine-heat-waves", "master"), "",
          github("oceanhackweek/ohw20-proj-marine-heat-waves"), "ohw20-proj-marine-heat-waves")),
    ("gh/stargaser/workshop-env/astropy-env/?urlpath=git-pull?repo=https://github.com/astropy/astropy-workshop"
     "%26amp%3Bbranch=main",
     Link(github("stargaser/workshop-env", "astropy-env"), "",
          github("astropy/astropy-workshop", "main"), "astropy-workshop")),
    ("gh/op07n/mygenericbinder2/master?urlpath=git-pull?repo=https://github.com/op07n/streamlit-launchpad",
     Link(github("op07n/mygenericbinder2", "master"), "", github("op07n/streamlit-launchpad"), "streamlit-launchpad")),
    ("gh/bilke/binder-ogs-requirements/master?urlpath=git-pull%3Frepo=https://gitlab.opengeosys.org/ogs/ogs.git"
     "%26urlpath=lab/tree/ogs/Tests/x.ipynb%26branch=master",
     Link(github("bilke/binder-ogs-requirements", "master"), "", git("gitlab.opengeosys.org/ogs/ogs.git", "master"),
          "ogs/Tests/x.ipynb")),
    ("gh/u/env/main?urlpath=%2Fgit-pull%253Frepo%253Dhttps%25253A%25252F%25252Fgithub.com%25252Fu%25252FFiles"
     "%2526urlpath%253Dvoila%25252Frender%25252FFiles%25252Fx.ipynb",
     Link(github("u/env", "main"), "", github("u/files"), "/voila/render/files/x.ipynb")),
    ("gh/u/env/main?urlpath=git-pull%3Frepo%3Dhttps%253A%252F%252Fgithub.com%252Fu%252Ffiles%26subPath%3Da%252Fb.ipynb",
     Link(github("u/env", "main"), "", github("u/files"), "files/a/b.ipynb")),
    ("gh/u/env/main?urlpath=git-pull%3Frepo%3Dhttps%253A%252F%252Fgithub.com%252Fu%252Ffiles%26urlpath%3Drstudio%252F",
     Link(github("u/env", "main"), "", github("u/files"), "/rstudio/")),
]  # fmt: skip


@pytest.mark.parametrize(("link", "asked"), LINKS)
def test_binders_links_ask_for_what_their_authors_mean(link: str, asked: Link) -> None:
    assert followed(link) == asked


@pytest.mark.parametrize(("link", "asked"), LINKS)
def test_a_path_that_was_decoded_on_its_way_is_read_as_well(link: str, asked: Link) -> None:
    assert followed(link, decoded=True) == asked


def test_a_scheme_that_lost_a_slash_on_its_way_is_read_as_well() -> None:
    assert parse_link("/v2/git/https:/git.example.org/g/data.git/feature/x", {}) == Link(
        git("git.example.org/g/data.git", "feature/x")
    )


@pytest.mark.parametrize(
    ("link", "told"),
    [
        ("", "must be for one of gh, gl"),
        ("x/u/r/main", "must be for one of gh, gl"),
        ("gh", "must be a repository's address"),
        ("gh/u", "must be a repository's address"),
        ("gh/-u/r/main", "must be a repository's address"),
        ("gh/u/r/--upload-pack=x", "has a version that must be"),
        ("gh/u/r/a..b", "has a version that must be"),
        ("gh/u/%ff/main", "percent-encoded as UTF-8"),
        ("gl/g/main", "address of a project"),
        ("gl/g%2Fp/-x", "has a version that must be"),
        ("gist/user/name/HEAD", "a Gist's address"),
        ("gist/user/", "a Gist's address"),
        ("git/git%40github.com%3Au%2Fr/HEAD", "SSH are not supported yet"),
        ("git/https%3A%2F%2Fs3cr3t%40git.example.org%2Fr/HEAD", "private repositories"),
        ("git/http%3A%2F%2Fgit.example.org%2Fr/HEAD", "must begin with https://"),
        ("git/file%3A%2F%2F%2Fetc/HEAD", "must begin with https://"),
        ("git/https%3A%2F%2Fdemo.ckan.org%2Fdataset%2Fx1/HEAD", "must be for a Git repository"),
        ("git/", "must be a repository's address"),
        ("git/https%3A%2F%2Fgit.example.org%2F%252e%252e%2Fr/HEAD", "“..”"),
        ("zenodo/19635623/", "must be a DOI"),
        ("zenodo/10.5281/../x", "must be a DOI"),
        ("hydroshare/x", "its DOI is the surest"),
        ("ckan/https%3A%2F%2Fgit.example.org%2Fr", "its DOI is the surest"),
        ("gh/u/r/main?labpath=../../etc/passwd", "has something to open that must be a path below"),
        ("gh/u/r/main?urlpath=%2F%2Fevil.example%5C",
         "has something to open that must be a path of the notebook's server"),
        ("gh/u/r/main?urlpath=.homeport/enter", "has something to open that must be a path of the notebook's server"),
        ("gh/u/r/main?urlpath=git-pull", "has a “repo” that must be a repository's address"),
        ("gh/u/r/main?urlpath=git-pull?repo=https://s3cr3t@github.com/u/r",
         "has a “repo” that must be the https address"),
        ("gh/u/r/main?urlpath=git-pull?repo=u/r%26branch=-x", "has a version that must be"),
        ("gh/u/r/main?urlpath=git-pull?repo=10.5281/zenodo.1%26branch=x", "must have no version of its own"),
        ("gh/u/r/main?urlpath=git-pull?repo=u/r%26urlpath=lab/tree/..",
         "has something to open that must be a path below"),
        (f"gh/u/r/main?urlpath=git-pull?repo=u/{'r' * 60}%26targetpath=x%26urlpath=tree/x/{'a' * 190}",
         "has a “urlpath” that must be"),
        (f"gh/u/r/main?urlpath=git-pull?repo={'a' * 4000}", "too long: at most 4,000"),
        (f"gh/u/r/{'a' * 2000}", "too long: at most 2,000"),
    ],
)  # fmt: skip
def test_a_link_that_cannot_be_followed_is_refused_with_what_to_do(link: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as refusal:
        followed(link)
    assert "s3cr3t" not in str(refusal.value)


def test_a_link_within_a_link_is_not_followed() -> None:
    nested = "https://a/v2/git/" * 100 + "https://git.example.org/r"
    assert parse_repository(nested).source.address.startswith("https://a/v2/git/https:/a/v2/")


# ── the hub's own ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("link", "query"),
    [
        (Link(), ""),
        (Link(github("u/r")), "repo=u/r"),
        (Link(Source(Provider.GITHUB, "https://github.com/u/r", "a/b", "c d"), open_path="x y.ipynb"),
         "repo=u/r&ref=a/b&folder=c%20d&open=x%20y.ipynb"),
        (Link(gitlab("g/p", "main")), "repo=https://gitlab.com/g/p&ref=main"),
        (Link(record(Provider.FIGSHARE, "10.25378/janelia.1")), "repo=figshare/10.25378/janelia.1"),
        (Link(None, "quay.io/jupyter/scipy-notebook:latest", github("u/r", "v1"), "/voila/render/r/x.ipynb?a=1&b=%20"),
         "image=quay.io/jupyter/scipy-notebook:latest"
     "&content=u/r&content_ref=v1&open=/voila/render/r/x.ipynb%3Fa%3D1%26b%3D%2520"),
    ],
)  # fmt: skip
def test_the_hubs_own_link_says_only_what_is_asked_for(link: Link, query: str) -> None:
    assert launch_query(link) == query
    assert read(query) == link


@pytest.mark.parametrize(("link", "asked"), LINKS)
def test_a_binder_link_survives_being_written_as_the_hubs_own(link: str, asked: Link) -> None:
    assert read(launch_query(followed(link))) == asked


def read(query: str) -> Link:
    """Read the hub's own link by the readers of the form's fields."""
    fields = dict(parse_qsl(query))
    source, content = (_source(fields, *names) for names in (("repo", "ref", "folder"), ("content", "content_ref", "")))
    return Link(source, fields.get("image", ""), content, parse_open(fields.get("open", "")))


def _source(fields: dict[str, str], repo: str, ref: str, folder: str) -> Source | None:
    if repo not in fields:
        return None
    source = parse_repository(fields[repo]).source
    version = parse_ref(fields[ref]) if ref in fields else ""
    return Source(source.provider, source.address, version, parse_folder(fields.get(folder, "")))


QUERIES = st.dictionaries(
    st.sampled_from(["labpath", "filepath", "urlpath"]),
    st.text(max_size=40)
    | st.lists(
        st.sampled_from(["git-pull", "?", "repo=", "branch=", "urlpath=", "&", ""
     "&amp;", "u/r", "lab/tree/", "%", "%252F", "/",
                         "..", "a", "#", "https://github.com/u/r", "targetpath="]),
        max_size=10,
    ).map("".join),
)  # fmt: skip


@given(st.sampled_from(["gh/u/r/main", "gl/g%2Fp/x", "zenodo/10.5281/zenodo.1"]) | st.text(max_size=40), QUERIES)
def test_any_link_is_a_launch_or_refused_and_survives_being_written(spec: str, query: dict[str, str]) -> None:
    try:
        link = parse_link(f"/v2/{spec}", query)
    except ValueError:
        return
    assert read(launch_query(link)) == link
