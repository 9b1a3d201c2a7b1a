"use strict";
(() => {
  const POLL = [1000, 6000];   // milliseconds between looks at a session that moves: at first, and at most;
  const POLL_AT_REST = [15000, 60000];  // the same at one that is ready;
  const POLL_SHARE = 0.1;      // in between, this share of the time that it is in its state already
  const POLL_HIDDEN = 10000;   // ... while nobody looks at the page; at rest four times as long as otherwise
  const POLL_LIMIT = 30000;    // ... at most, after failures
  const LARGEST = 65536;       // bytes of a bundle that the hub reads
  const LEAVING_PAUSE = 2000;  // milliseconds between attempts to launch what is being stopped,
  const LEAVING_ROUNDS = 30;   // and how many there are
  const TYPING_PAUSE = 300;    // milliseconds without a key before what is typed is asked about
  const KNOWN = "homeport-launched";  // where the browser remembers what it launched from links,
  const KNOWN_LIMIT = 200;            // and how much of it

  const byId = (id) => document.getElementById(id);

  const make = (tag, attributes, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // ── times ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const TIMES = {
    day: {day: "numeric", month: "long", year: "numeric"},
    moment: {weekday: "short", day: "numeric", month: "long", hour: "2-digit", minute: "2-digit", hourCycle: "h23"},
    clock: {hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23"},
  };

  const shown = (at, how) => new Intl.DateTimeFormat("en-GB", TIMES[how]).format(new Date(at));

  const time = (at, how) => make("time", {datetime: at, "data-show": how}, shown(at, how));

  const localTimes = () => {
    for (const element of document.querySelectorAll("time[data-show]")) {
      element.textContent = shown(element.dateTime, element.dataset.show);
    }
  };

  const fromNow = (at) => {
    const days = Math.round((new Date(at) - Date.now()) / 86400000);
    const [amount, unit] = Math.abs(days) > 700 ? [days / 365, "year"] : Math.abs(days) > 60 ? [days / 30.4, "month"] : [days, "day"];
    return new Intl.RelativeTimeFormat("en", {numeric: "auto"}).format(Math.round(amount), unit);
  };

  // ── the hub ───────────────────────────────────────────────────────────────────────────────────────────────────

  class Problem extends Error {
    constructor(message, code, status) {
      super(message);
      this.code = code;
      this.status = status;
    }
  }

  // Answer with the JSON at `url`, or throw a Problem that can be shown as it is.
  const ask = async (url, options = {}) => {
    let response;
    try {
      response = await fetch(url, {...options, headers: {Accept: "application/json"}});
    } catch {
      const file = options.body ? " If a file is chosen, choose it again: it may have changed since. A folder has to be zipped first." : "";
      throw new Problem(`The hub could not be reached.${file}`, "", 0);
    }
    const value = await response.json().catch(() => null);
    if (response.ok && value) return value;
    const sentence = value?.detail ?? value?.title ?? `The hub answered with status ${response.status} with no explanation. Try again in a moment.`;
    throw new Problem(sentence, value?.code ?? "", response.status);
  };

  // ── what was launched from a link before ──────────────────────────────────────────────────────────────────────

  // Nothing is remembered where the browser keeps nothing: the whole text is shown each time then.
  const known = () => {
    try {
      const found = JSON.parse(localStorage.getItem(KNOWN));
      return Array.isArray(found) ? found : [];
    } catch {
      return [];
    }
  };

  const remember = (link) => {
    try {
      localStorage.setItem(KNOWN, JSON.stringify([link, ...known().filter((other) => other !== link)].slice(0, KNOWN_LIMIT)));
    } catch { /* full, or not allowed */ }
  };

  // ── repositories in forms ─────────────────────────────────────────────────────────────────────────────────────

  // What the hub's parser makes of an address goes into the fields, unless the visitor typed something else there.
  // `fields`: the address and what it fills in, by the names that the answer has; `sent`: what all is asked about.
  const repositoryField = ({root, address, fields, sent, line, told}) => {
    const filled = {...Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.value])), open: address.dataset.open};
    let turn = 0;

    const tell = (text, isProblem) => {
      line.textContent = text;
      line.hidden = text === "";
      line.toggleAttribute("data-problem", isProblem);
    };

    const fill = (found) => {
      for (const [name, field] of Object.entries(fields)) {
        if (found[name] || field.value === filled[name]) field.value = found[name];
        filled[name] = found[name];
      }
      fields.ref.readOnly = !found.versioned;
      fields.ref.placeholder = found.versioned ? "the default branch" : "as the address says";
      if (!found.versioned) fields.ref.value = "";
    };

    const summary = (found) => {
      const isOpened = filled.open && fields.open.value === filled.open;
      return isOpened ? `${found.summary}, opens ${filled.open}` : found.summary;
    };

    // An address alone says what the other fields are; with them it is asked about as a launch would have it.
    const describe = async (names) => {
      const [mine, typed] = [++turn, address.value];
      if (typed.trim() === "") {
        fill({...Object.fromEntries(Object.keys(fields).map((name) => [name, ""])), versioned: true});
        tell("", false);
        return told(null);
      }
      const query = new URLSearchParams(names.filter((field) => field.value).map((field) => [field.name, field.value]));
      try {
        const found = await ask(`${root}repository?${query}`);
        if (mine !== turn || address.value !== typed) return undefined;
        if (names !== sent) {
          fill(found);
          const isAll = Object.entries(fields).every(([name, field]) => field.value === found[name] || !sent.includes(field));
          if (!isAll) return describe(sent);
        }
        tell(summary(found), false);
        return told(found);
      } catch (refusal) {
        if (!(refusal instanceof Problem)) throw refusal;
        if (mine !== turn) return undefined;
        tell(refusal.message, true);
        return told(null);
      }
    };

    // A browser also tells of a change when the visitor leaves a field that was filled in meanwhile: nothing was typed.
    const isTyped = () => Object.entries(fields).some(([name, field]) => field === address && field.value !== filled[name]);
    for (const field of sent) {
      field.addEventListener("change", () => describe(field === address && isTyped() ? [address] : sent));
    }
    address.addEventListener("input", (event) => {
      if (event.inputType === "insertFromPaste") describe([address]);
    });
    if (address.value !== address.defaultValue) describe([address]);  // a browser keeps what was typed when it comes back
  };

  // ── the launch form ───────────────────────────────────────────────────────────────────────────────────────────

  const factsOf = (check) => {
    const dropped = check.dropped.flatMap((name, i) => [i ? ", " : "", make("code", {}, name)]);
    const rows = [
      ["Format", check.format],
      ["Endpoint", make("span", {class: "mono"}, check.endpoint)],
      ["Certificate", check.subject],
      ["Fingerprint", make("span", {class: "mono"}, check.fingerprint.replace(/(.{4})(?=.)/g, "$1 "))],
      ["Valid until", make("span", {}, time(check.expires_at, "day"), `, ${fromNow(check.expires_at)}`)],
      ["Not kept", dropped.length ? make("span", {}, ...dropped) : "Nothing else was in the file"],
    ];
    return make("dl", {class: "facts"}, ...rows.map(([term, fact]) => make("div", {}, make("dt", {}, term), make("dd", {}, fact))));
  };

  const launchForm = (form) => {
    const {credentials, host} = form.elements;
    const [hostBox, result, problem, drop] = ["host-box", "result", "problem", "drop"].map(byId);
    const [launchButton, checkButton] = ["launch-button", "check-button"].map(byId);
    const root = form.dataset.root;
    const consent = byId("consent");
    const linked = ["repo", "content", "image"].map((name) => form.elements[name]).filter(Boolean);
    let turn = 0;
    let busy = false;

    // A repository or an image: the fields of the other one are kept and not sent.
    const choice = () => {
      const {repo, ref, folder, image, content, pull, open, name} = form.elements;
      const suggested = {repo: repo.dataset.name, content: content.dataset.name};

      const suggest = () => {
        const ofRepository = form.elements.what.value === "repository" && suggested.repo;
        name.placeholder = ofRepository || suggested.content || name.dataset.suggested;
      };

      const choose = () => {
        const isRepository = form.elements.what.value === "repository";
        for (const field of byId("of-repository").querySelectorAll("input")) field.disabled = !isRepository;
        image.disabled = isRepository;
        pull.disabled = isRepository;
        suggest();
      };

      const told = (which) => (found) => {
        suggested[which] = found?.name ?? "";
        suggest();
      };

      form.elements.what.forEach((radio) => radio.addEventListener("change", choose));
      repositoryField({root, address: repo, fields: {repo, ref, folder, open}, sent: [repo, ref, folder], line: byId("repo-found"), told: told("repo")});
      repositoryField({
        root,
        address: content,
        fields: {repo: content, ref: form.elements.content_ref, open},
        sent: [content, form.elements.content_ref],
        line: byId("content-found"),
        told: told("content"),
      });
      addEventListener("pageshow", choose);
      choose();
    };

    const tell = (...children) => {
      result.replaceChildren(...children);
      result.hidden = !children.length;
      result.toggleAttribute("data-ok", false);
    };

    const refuse = (refusal) => {
      problem.replaceChildren(refusal.message, ...(refusal.code ? [make("span", {class: "code"}, refusal.code)] : []));
      problem.hidden = false;
      problem.scrollIntoView({block: "nearest"});
    };

    const askForHost = (wanted) => {
      hostBox.hidden = !wanted;
      hostBox.open = wanted;
      hostBox.classList.toggle("asked", wanted);
    };

    const fields = (names) => {
      const data = new FormData(form);
      for (const [name, value] of [...data]) {
        if (value === "" || (names && !names.includes(name))) data.delete(name);
      }
      return data;
    };

    const refused = (refusal) => {
      tell();
      if (refusal.code !== "endpoint-missing") return refuse(refusal);
      askForHost(true);
      host.focus();
    };

    const check = async (withHost) => {
      const file = credentials.files[0];
      const mine = ++turn;
      problem.hidden = true;
      if (!file) return tell();
      if (file.size > LARGEST) {
        tell();
        return refuse(new Problem(`“${file.name}” is too large to be a bundle: at most 64 KiB. Choose the exported or zipped credentials.`, "body-too-large"));
      }
      tell(make("p", {class: "quiet"}, `Checking “${file.name}”…`));
      try {
        const found = await ask(`${root}bundles`, {method: "POST", body: fields(withHost ? ["credentials", "host"] : ["credentials"])});
        if (mine !== turn) return;
        if (!withHost) {
          host.value = "";
          askForHost(false);
        }
        tell(
          make("p", {class: "verdict"}, "This file can be used. Nothing is stored yet."),
          factsOf(found),
          ...found.warnings.map((warning) => make("p", {class: "warning"}, warning)),
        );
        result.toggleAttribute("data-ok", true);
      } catch (refusal) {
        if (!(refusal instanceof Problem)) throw refusal;
        if (mine !== turn) return;
        if (refusal.code === "endpoint-missing" && !withHost && host.value) return check(true);
        refused(refusal);
      }
    };

    const rest = () => {
      busy = false;
      launchButton.removeAttribute("aria-disabled");
      launchButton.textContent = "Launch";
    };

    // A notebook of this name may be on its way out; it is launched as soon as it has stopped.
    const begin = async () => {
      for (let round = 0; ; round += 1) {
        try {
          return await ask(`${root}sessions`, {method: "POST", body: fields()});
        } catch (refusal) {
          if (refusal.code !== "session-leaving" || round >= LEAVING_ROUNDS) throw refusal;
          launchButton.textContent = "Waiting until it has stopped…";
          await new Promise((resolve) => setTimeout(resolve, LEAVING_PAUSE));
        }
      }
    };

    const launch = async () => {
      if (busy) return;
      busy = true;
      problem.hidden = true;
      launchButton.setAttribute("aria-disabled", "true");
      launchButton.textContent = "Launching…";
      try {
        const session = await begin();
        if (consent && linked.every((field) => field.value === field.defaultValue)) remember(consent.dataset.known);
        location.assign(`${root}sessions/${encodeURIComponent(session.id)}#launched`);
      } catch (refusal) {
        rest();
        if (!(refusal instanceof Problem)) throw refusal;
        if (refusal.code === "endpoint-missing") refused(refusal);
        else refuse(refusal);
      }
    };

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (event.submitter === checkButton) check(host.value !== "");
      else launch();
    });
    credentials.addEventListener("change", () => check(false));
    host.addEventListener("change", () => check(host.value !== ""));

    for (const name of ["dragenter", "dragover"]) {
      drop.addEventListener(name, (event) => {
        event.preventDefault();
        drop.classList.add("over");
      });
    }
    drop.addEventListener("dragleave", (event) => {
      if (!drop.contains(event.relatedTarget)) drop.classList.remove("over");
    });
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      if (!event.dataTransfer.files.length) return;
      credentials.files = event.dataTransfer.files;
      check(false);
    });

    addEventListener("pageshow", rest);
    if (form.elements.what) choice();
    if (consent && known().includes(consent.dataset.known)) {
      byId("consent-full").hidden = true;
      byId("consent-brief").hidden = false;
    }
    byId("drop-hint").hidden = false;
    askForHost(false);
    if (credentials.files.length) check(false);
  };

  // ── a session ─────────────────────────────────────────────────────────────────────────────────────────────────

  const sessionPage = (page) => {
    const {name} = page.dataset;
    const launchedHere = location.hash === "#launched";
    let {phase, state} = page.dataset;
    let last = Number(page.dataset.last);
    let failures = 0;
    let since = performance.now();  // in its state
    let timer = 0;
    let looking = false;
    let mayEnter = launchedHere || phase === "launching";
    if (launchedHere) history.replaceState(null, "", location.pathname + location.search);

    // Open the notebook without being asked: once, when it got ready before the visitor's eyes.
    const enter = () => {
      if (phase !== "ready" || !mayEnter || document.querySelector(".act[open]")) return;
      mayEnter = false;
      byId("open").submit();
    };

    const showProgress = (progress) => {
      const bar = byId("progress");
      bar.hidden = phase !== "launching";
      if (progress === null) return bar.removeAttribute("value");
      const percent = Math.round(100 * progress);
      bar.value = percent;
      byId("sailed").setAttribute("stroke-dasharray", `${percent} 200`);
      return byId("vessel").setAttribute("stroke-dashoffset", -Math.min(percent, 99.9));
    };

    const showSteps = (steps) => {
      byId("steps").hidden = !steps.length;
      byId("steps").replaceChildren(...steps.map((step) => {
        const current = step.status === "now" ? {"aria-current": "step"} : {};
        return make("li", {"data-is": step.status, ...current}, step.name);
      }));
    };

    const short = (version) => /^[0-9a-f]{40}$/.test(version) ? version.slice(0, 7) : version;

    // What a repository's version is, which is not known before its endpoint has looked.
    const showVersions = ({repository, content}) => {
      for (const [source, id] of [[repository, "repository-at"], [content, "content-at"]]) {
        if (!source) continue;
        byId(id).querySelector("code").textContent = short(source.version ?? "");
        byId(id).hidden = !source.version;
      }
      if (!repository) return;
      byId("built").textContent = repository.version ? `from ${repository.name}@${short(repository.version)}` : "not built yet";
    };

    const showPhase = (session) => {
      const chip = byId("chip");
      page.dataset.phase = chip.dataset.phase = phase;
      chip.toggleAttribute("data-failed", session.error !== null);
      if (chip.textContent !== session.headline) {
        chip.textContent = session.headline;
        document.title = `${session.headline} · ${name} · Homeport`;
        byId("announce").textContent = session.error ? "" : `${session.headline}. ${session.message}`;
      }
      const known = flags(session);
      for (const element of page.querySelectorAll("[data-for]")) {
        const needs = element.dataset.when?.split(" ") ?? [];
        element.hidden = !element.dataset.for.split(" ").includes(phase) || !needs.every((flag) => known.has(flag));
      }
    };

    // What `parts.flags` says when the hub makes the page.
    const flags = (session) => new Set([
      session.credentials_held ? "held" : "not-held",
      session.kept_until ? "kept" : "not-kept",
      session.keepable_until ? "keepable" : "not-keepable",
      session.again ? "again" : "not-again",
      session.headline === "Deleted" ? "deleted" : "not-deleted",
      session.warning ? "ending" : "not-ending",
      session.save_as ? "savable" : "not-savable",
      session.state === "ready" && session.credentials_held ? "tidiable" : "not-tidiable",
      session.log_url ? "logged" : "not-logged",
      session.error ? "failed" : "not-failed",
    ]);

    const showEnd = (session) => {
      for (const element of page.querySelectorAll("#expires, #kept-until, .expires")) {
        element.dateTime = session.expires_at;
        element.textContent = shown(session.expires_at, "moment");
      }
      byId("left").dataset.until = session.expires_at;
      byId("warning").textContent = session.warning ?? "";
      byId("by-hand").textContent = `docker rm -f ${session.container ?? ""}`;
      countDown();
    };

    const countDown = () => {
      const minutes = Math.max(0, Math.floor((new Date(byId("left").dataset.until) - Date.now()) / 60000));
      const [hours, days] = [Math.floor(minutes / 60), Math.floor(minutes / 1440)];
      byId("left").textContent = days > 2 ? `in ${days} days` : hours ? `in ${hours} h ${minutes % 60} min` : `in ${minutes} min`;
    };

    const show = (session) => {
      const isTidied = state === "tidying" && session.state === "ready";
      if (state !== session.state) since = performance.now();
      ({phase, state} = session);
      if (isTidied) location.reload();  // the list of images is the hub's
      showPhase(session);
      showSteps(session.steps);
      showVersions(session);
      showProgress(session.progress);
      showEnd(session);
      byId("message").textContent = session.error?.message === session.message ? "" : session.message;
      byId("message").hidden = byId("message").textContent === "";
      byId("failure").hidden = !session.error;
      if (session.error && byId("failure-message").textContent !== session.error.message) {
        byId("failure-message").textContent = session.error.message;
        byId("failure-code").textContent = session.error.code;
      }
    };

    // The lines of one pull replace each other, as they do in the hub's own log.
    const addLines = (lines) => {
      const log = byId("log");
      for (const line of lines) {
        if (line.number <= last) continue;
        last = line.number;
        if (line.progress && log.lastElementChild?.hasAttribute("data-progress")) log.lastElementChild.remove();
        const item = make("li", {}, time(line.at, "clock"), " ", make("span", {}, line.text));
        item.toggleAttribute("data-progress", line.progress);
        log.append(item);
      }
    };

    const look = async (returned) => {
      const query = `?after=${last}${returned ? "&look=1" : ""}`;
      const {session, events} = await ask(page.dataset.events + query, {cache: "no-store"});
      addLines(events);
      show(session);
      enter();
    };

    const wait = () => {
      const [least, most] = state === "ready" ? POLL_AT_REST : POLL;
      if (failures) return Math.min(POLL[0] * 2 ** failures, POLL_LIMIT);
      const pause = Math.min(least + POLL_SHARE * (performance.now() - since), most);
      if (document.hidden) return state === "ready" ? 4 * pause : Math.max(pause, POLL_HIDDEN);
      return pause;
    };

    const watch = async (returned = false) => {
      if (looking) return;
      looking = true;
      clearTimeout(timer);
      const problem = byId("problem");
      try {
        await look(returned);
        failures = 0;
        problem.hidden = true;
      } catch (refusal) {
        if (!(refusal instanceof Problem)) throw refusal;
        failures += 1;
        problem.hidden = failures < 2 && refusal.status === 0;
        problem.textContent = refusal.message;
        if ([401, 403, 404].includes(refusal.status)) return;
      } finally {
        looking = false;
      }
      if (phase !== "stopped") timer = setTimeout(watch, wait());
    };

    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && phase !== "stopped") watch(true);
    });
    addEventListener("pageshow", (event) => {
      if (event.persisted && phase !== "stopped") watch(true);
    });
    enter();
    countDown();
    setInterval(countDown, 30000);
    if (phase !== "stopped") timer = setTimeout(watch, wait());
  };

  // ── launch links ──────────────────────────────────────────────────────────────────────────────────────────────

  const badgeForm = (form) => {
    const problem = byId("problem");
    let [turn, timer] = [0, 0];

    const show = (made) => {
      problem.hidden = true;
      byId("made").hidden = !made;
      if (!made) return;
      byId("made-anchor").href = made.link;
      for (const name of ["link", "markdown", "html", "rst"]) byId(`made-${name}`).value = made[name];
    };

    const update = async () => {
      const mine = ++turn;
      clearTimeout(timer);
      const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value.trim() !== ""));
      if (!query.size) return show(null);
      try {
        const made = await ask(`${form.action}?${query}`);
        if (mine === turn) show(made);
      } catch (refusal) {
        if (!(refusal instanceof Problem)) throw refusal;
        if (mine !== turn) return;
        show(null);
        problem.textContent = refusal.message;
        problem.hidden = false;
      }
    };

    form.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(update, TYPING_PAUSE);
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      update();
    });
    for (const button of document.querySelectorAll("[data-copy]")) {
      button.hidden = false;
      button.addEventListener("click", async () => {
        const text = byId(button.dataset.copy);
        text.select();
        const copied = await navigator.clipboard?.writeText(text.value).then(() => true, () => false);
        byId("copied").textContent = copied ? "Copied" : "Press Ctrl+C to copy what is selected";
        button.toggleAttribute("data-done", Boolean(copied));
      });
    }
    byId("badge-actions").hidden = true;
    if ([...form.elements].some((field) => field.value !== field.defaultValue)) update();
  };

  // ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

  localTimes();
  const [form, page, badge] = [byId("launch"), byId("session"), byId("badge-form")];
  if (form) launchForm(form);
  if (badge) badgeForm(badge);
  if (page) sessionPage(page);
  for (const automatic of document.querySelectorAll("form[data-submit]")) automatic.submit();
})();
