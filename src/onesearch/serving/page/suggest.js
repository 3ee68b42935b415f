// The list below a search box, as an ARIA combobox with a listbox: arrows move, Enter takes, Escape closes.

const WAIT = 60; // milliseconds without a key before completions are asked for

/**
 * Complete what is typed into `input`.
 * `ask(text, signal)` promises completions {text, kind}; `choose(text)` is called with the one that was taken.
 */
export function completeIn(input, list, ask, choose) {
  let timer = 0;
  let running = null;
  let active = -1; // place of the marked option

  function mark(at) {
    list.children[active]?.setAttribute("aria-selected", "false");
    active = at;
    const option = list.children[at];
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({ block: "nearest" });
    if (option) input.setAttribute("aria-activedescendant", option.id);
    else input.removeAttribute("aria-activedescendant");
  }

  function show(suggestions) {
    list.replaceChildren(...suggestions.map((suggestion, at) => {
      const option = document.createElement("li");
      option.id = `${list.id}-${at}`;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", "false");
      option.append(suggestion.text);
      if (suggestion.kind !== "query") {
        const kind = document.createElement("small");
        kind.textContent = suggestion.kind;
        option.append(" ", kind);
      }
      option.addEventListener("click", () => take(suggestion.text));
      return option;
    }));
    mark(-1);
    list.hidden = !suggestions.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
  }

  function close() {
    clearTimeout(timer);
    running?.abort();
    show([]);
  }

  function take(text) {
    close();
    choose(text);
  }

  async function look() {
    running?.abort();
    running = new AbortController();
    const { signal } = running;
    try {
      const suggestions = await ask(input.value, signal);
      if (!signal.aborted) show(suggestions);
    } catch {
      if (!signal.aborted) show([]); // a search works without completions
    }
  }

  input.addEventListener("input", () => {
    clearTimeout(timer);
    if (input.value.trim()) timer = setTimeout(look, WAIT);
    else close();
  });
  input.addEventListener("keydown", (event) => {
    if (list.hidden || event.isComposing) return;
    const count = list.children.length;
    // One place beyond the options is the box itself, where nothing is marked.
    if (event.key === "ArrowDown") mark(active + 1 < count ? active + 1 : -1);
    else if (event.key === "ArrowUp") mark(active < 0 ? count - 1 : active - 1);
    else if (event.key === "Enter" && active >= 0) list.children[active].click();
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
  input.addEventListener("blur", close);
  input.form.addEventListener("submit", close);
  list.addEventListener("pointerdown", (event) => event.preventDefault()); // the box keeps the focus
}
