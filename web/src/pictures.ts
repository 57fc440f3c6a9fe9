// The last picture of each desktop, in this page's memory only: it is gone
// with the page and never stored.
import type { Desktop } from "./words";

const pictures = new Map<string, string>();

const key = (project: string | undefined, name: string) => `${project ?? ""}/${name}`;

export function keepPicture(project: string, name: string, picture: string | undefined): void {
  if (picture) pictures.set(key(project, name), picture);
}

export function pictureOf(d: Desktop): string | undefined {
  return pictures.get(key(d.metadata.project, d.metadata.name));
}

/** forgetPictures is for signing out. */
export function forgetPictures(): void {
  pictures.clear();
}
