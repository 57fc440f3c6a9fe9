// What the page knows of the estate, kept by the watch and read by the pages.
import { useSyncExternalStore } from "react";
import type { Kind, Of, Resource, WatchEvent } from "./words";

export interface Link {
  live: boolean;
  tries: number;
  next: number; // when the next try is, as Date.now
}

function key(kind: string, project: string | undefined, name: string): string {
  return `${kind}/${project ?? ""}/${name}`;
}

export class Estate {
  #objects = new Map<string, Resource>();
  #listeners = new Set<() => void>();
  #revision = 0;
  #link: Link = { live: false, tries: 0, next: 0 };
  loaded = false;

  get link(): Link {
    return this.#link;
  }

  get<K extends Kind>(kind: K, project: string | undefined, name: string): Of<K> | undefined {
    return this.#objects.get(key(kind, project, name)) as Of<K> | undefined;
  }

  all<K extends Kind>(kind: K): Of<K>[] {
    const found: Of<K>[] = [];
    for (const o of this.#objects.values()) if (o.kind === kind) found.push(o as Of<K>);
    return found.sort((a, b) => a.metadata.name.localeCompare(b.metadata.name));
  }

  /** put takes an object unless a newer one is known, as after an answer that overtook the watch. */
  put(o: Resource): void {
    if (this.#put(o)) this.#tell();
  }

  #put(o: Resource): boolean {
    const k = key(o.kind, o.metadata.project, o.metadata.name);
    const version = o.metadata.version ?? 0;
    const known = this.#objects.get(k);
    if (known && (known.metadata.version ?? 0) > version) return false;
    this.#objects.set(k, o);
    return true;
  }

  take(e: WatchEvent): void {
    if (!e.object) return;
    if (e.type === "put") this.#put(e.object);
    if (e.type === "deleted") {
      const { kind, metadata: m } = e.object;
      this.#objects.delete(key(kind, m.project, m.name));
    }
    this.#tell();
  }

  /** replace forgets what is not in the list. */
  replace(list: Resource[]): void {
    this.#objects.clear();
    for (const o of list) this.#put(o);
    this.loaded = true;
    this.#tell();
  }

  setLink(link: Link): void {
    this.#link = link;
    this.#tell();
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  revision = (): number => this.#revision;

  #tell(): void {
    this.#revision++;
    for (const l of this.#listeners) l();
  }
}

/** useEstate draws the component again whenever the estate changed. */
export function useEstate(estate: Estate): Estate {
  useSyncExternalStore(estate.subscribe, estate.revision);
  return estate;
}
