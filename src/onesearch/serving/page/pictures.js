// Pictures of items. A listing may name any address: only those on the shop's own image hosts are ever asked for, and
// those that the run itself brings.

/** The addresses of an item's pictures on `hosts`, which are origins such as https://img.shop.example, or of the run. */
export function picturesOn(hosts, item) {
  return (item.images ?? []).flatMap((text) => {
    const own = /^pictures\.zip\/([\w-]+\.\w+)$/.exec(text);
    if (own) return [`pictures/${own[1]}`];
    try {
      const url = new URL(text);
      return /^https?:$/.test(url.protocol) && hosts.includes(url.origin) ? [url.href] : []; // a blob: has an origin, too
    } catch {
      return []; // a path, or no address at all
    }
  });
}

/** A picture over `box`, which is seen until it is there, and stays where it cannot be had. */
export function showPicture(box, address, words) {
  const picture = document.createElement("img");
  picture.alt = words;
  picture.loading = "lazy";
  picture.decoding = "async";
  picture.addEventListener("load", () => picture.classList.add("there"));
  picture.addEventListener("error", () => picture.remove());
  picture.src = address;
  box.append(picture);
}
