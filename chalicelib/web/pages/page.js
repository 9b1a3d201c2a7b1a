"use strict";
(() => {
  const POLL = 1000;           // milliseconds between looks at a session that moves
  const POLL_AT_REST = 15000;  // ... at one that is ready
  const POLL_HIDDEN = 10000;   // ... while nobody looks at the page; at rest four times as long as otherwise
  const POLL_LIMIT = 30000;    // ... at most, after failures
  const LARGEST = 65536;       // bytes of a bundle that the hub reads
  const LEAVING_PAUSE = 2000;  // milliseconds between attempts to launch what is being stopped,
  const LEAVING_ROUNDS = 30;   // and how many there are

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
    let turn = 0;
    let busy = false;

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
      ({phase, state} = session);
      showPhase(session);
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
      if (failures) return Math.min(POLL * 2 ** failures, POLL_LIMIT);
      if (document.hidden) return state === "ready" ? 4 * POLL_AT_REST : POLL_HIDDEN;
      return state === "ready" ? POLL_AT_REST : POLL;
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

  // ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

  localTimes();
  const [form, page] = [byId("launch"), byId("session")];
  if (form) launchForm(form);
  if (page) sessionPage(page);
  for (const automatic of document.querySelectorAll("form[data-submit]")) automatic.submit();
})();
