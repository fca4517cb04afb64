// The apps of somebody's tasks, by the names of their processes, and their sources: what the filters offer.

const NAMES_MAX = 3;

export class Apps {
  constructor(apps = []) {
    this._names = new Map(apps.map((app) => [app, new Set()]));
    this._sources = new Set();
  }

  has(app) {
    return this._names.has(app);
  }

  /** The sending systems, where there is more than one: in the order of their names. */
  get sources() {
    return this._sources.size > 1 ? [...this._sources].toSorted() : [];
  }

  know(app, name = null, source = null) {
    if (source) this._sources.add(source);
    const names = this._names.get(app) ?? new Set();
    if (name) names.add(name);
    this._names.set(app, names);
  }

  /** `[[app, text]]` for people, in the order of the texts; with the id where nothing else tells two apart. */
  labels(words) {
    const labels = [...this._names].map(([app, names]) => {
      const sorted = [...names].toSorted((one, other) => one.localeCompare(other, words.tag));
      const shown = sorted.slice(0, NAMES_MAX).join(words.listComma);
      return [app, names.size > NAMES_MAX ? `${shown}…` : shown];
    });
    const uses = (label) => labels.filter(([, other]) => other === label).length;
    return labels
      .map(([app, label]) => [app, label === "" ? app : uses(label) > 1 ? `${label} · ${app}` : label])
      .toSorted((one, other) => one[1].localeCompare(other[1], words.tag));
  }
}
