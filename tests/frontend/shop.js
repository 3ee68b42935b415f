// A shop's search page as InstantSearch's guide for Meilisearch writes it; nothing in it knows of our server.

import { instantMeiliSearch } from "./node_modules/@meilisearch/instant-meilisearch/dist/index.js";

const server = new URLSearchParams(location.search).get("server");
const { searchClient } = instantMeiliSearch(server, "a-key-that-nobody-asks-for", { primaryKey: "id", finitePagination: true });
const search = instantsearch({ indexName: "products", searchClient });
const { searchBox, stats, hierarchicalMenu, refinementList, sortBy, hits, pagination, configure } = instantsearch.widgets;

search.addWidgets([
  configure({ hitsPerPage: 6 }),
  searchBox({ container: "#searchbox" }),
  stats({ container: "#stats" }),
  hierarchicalMenu({ container: "#menu", attributes: ["category.lvl0", "category.lvl1"] }),
  refinementList({ container: "#brands", attribute: "brand", operator: "or" }),
  sortBy({ container: "#sort", items: [
    { label: "Relevance", value: "products" },
    { label: "Price", value: "products:price:asc" },
  ] }),
  hits({
    container: "#hits",
    templates: { item: (hit, { html, components }) => html`<article data-item="${hit.id}" data-price="${hit.price}">${components.Highlight({ hit, attribute: "title" })}</article>` },
  }),
  pagination({ container: "#pages" }),
]);
search.start();
