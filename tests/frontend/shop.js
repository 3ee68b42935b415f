// A shop's search page as InstantSearch's guide for Meilisearch writes it; of our server it knows how to send clicks.

import { instantMeiliSearch } from "./node_modules/@meilisearch/instant-meilisearch/dist/index.js";

const asked = new URLSearchParams(location.search);
const server = asked.get("server");
const user = asked.get("user"); // whom the shop knows from its login
const { searchClient } = instantMeiliSearch(server, "a-key-that-nobody-asks-for", {
  primaryKey: "id",
  finitePagination: true,
  requestInit: { headers: user ? { "X-OneSearch-User": user } : {} },
});
const search = instantsearch({ indexName: "products", searchClient });
const { searchBox, stats, hierarchicalMenu, refinementList, sortBy, hits, pagination, configure } = instantsearch.widgets;

search.addWidgets([
  configure({ hitsPerPage: 6 }),
  searchBox({ container: "#searchbox" }),
  stats({ container: "#stats", templates: { text: ({ nbHits }) => `${nbHits} results` } }),
  hierarchicalMenu({ container: "#menu", attributes: ["category.lvl0", "category.lvl1"] }),
  refinementList({ container: "#brands", attribute: "brand", operator: "or" }),
  sortBy({ container: "#sort", items: [
    { label: "Relevance", value: "products" },
    { label: "Price", value: "products:price:asc" },
  ] }),
  hits({
    container: "#hits",
    templates: {
      item: (hit, { html, components, sendEvent }) => html`
        <article data-item="${hit.id}" data-price="${hit.price}">
          <h2>${components.Highlight({ hit, attribute: "title" })}</h2>
          <p>${[hit.brand, hit.price?.toFixed(2)].filter(Boolean).join(" · ")}</p>
          <button onClick=${(event) => { event.stopPropagation(); sendEvent("conversion", hit, "Bought"); }}>Buy</button>
        </article>`,
    },
  }),
  pagination({ container: "#pages" }),
]);

// A click on a hit, or a conversion, with the id of the search that found it: each hit's `__queryID`.
search.use(instantsearch.middlewares.createInsightsMiddleware({
  insightsClient: null,
  onEvent: ({ eventType, payload }) => {
    const kind = { click: "click", conversion: "order" }[eventType];
    const [item_id] = payload.objectIDs ?? []; // none: a filter was clicked
    if (!kind || !item_id) return; // what was seen the server knows from the search
    const event = { event_id: crypto.randomUUID(), user, item_id, kind, query: search.helper.state.query, search_id: payload.queryID };
    fetch(`${server}/events`, {
      method: "POST", keepalive: true, headers: { "content-type": "application/json" }, body: JSON.stringify(event),
    });
  },
}));
search.start();
