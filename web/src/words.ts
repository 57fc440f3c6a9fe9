// The words of the API that these pages use. Everything the plane writes may
// be absent for a moment, so everything below spec and status is optional.

export interface Metadata {
  name: string;
  project?: string;
  uid?: string;
  version?: number;
  generation?: number;
  deleting?: string;
}

export interface Condition {
  type: string;
  status: "True" | "False" | "Unknown";
  reason?: string;
  text?: string;
}

export interface Progress {
  waiting?: string;
  conditions?: Condition[];
}

export interface Work {
  phase: string;
  step: number;
  steps: number;
  percent: number;
}

interface Thing<K extends string, Spec, Status = Progress> {
  apiVersion?: string;
  kind: K;
  metadata: Metadata;
  spec: Spec;
  status?: Status;
}

export interface Way {
  name: string;
  protocol: string;
  port?: number;
}

export interface Plan {
  image: string;
  presentation: Way;
  layers?: { application: string; version: string; digest: string }[];
  context: string;
}

export type DesktopState = "off" | "preparing" | "starting" | "running" | "stopping" | "blocked";

export type Desktop = Thing<
  "Desktop",
  { title?: string; blueprint: string; person: string; power?: "off" | "on"; resets?: number },
  Progress & { state?: DesktopState; plan?: Plan; next?: Plan; presentation?: string; resets?: number }
>;

export interface Phase {
  name: string;
  text?: string;
  began?: string;
  ended?: string;
}

export type Session = Thing<
  "Session",
  { desktop: string; person: string; presentation?: string; end?: boolean },
  Progress & { state?: "waiting" | "ready" | "open" | "ended"; phases?: Phase[]; way?: Way; because?: string }
>;

export type Application = Thing<
  "Application",
  { title: string; icon?: string },
  Progress & { layers?: { version: string; image: string; digest?: string; work?: Work; text?: string }[] }
>;

export interface Clipboard {
  in?: boolean;
  out?: boolean;
  maxBytes?: string;
}

export type Context = Thing<
  "Context",
  { title?: string; colour: string; trust: number; lifetime?: string; clipboard?: Clipboard }
>;

export type Blueprint = Thing<
  "Blueprint",
  { title?: string; image: string; presentation: string; applications?: { name: string; version?: string }[]; context: string }
>;

export type Image = Thing<"Image", { title?: string }, Progress & { digest?: string; work?: Work }>;

export type Machine = Thing<"Machine", object, Progress & { layers?: { application: string; attached: boolean; text?: string }[] }>;

export type Resource = Desktop | Session | Application | Context | Blueprint | Image | Machine;
export type Kind = Resource["kind"];
export type Of<K extends Kind> = Extract<Resource, { kind: K }>;

export interface WatchEvent {
  type: "put" | "deleted" | "bookmark";
  version: number;
  object?: Resource;
}

export interface PresentationOffer {
  name: string;
  protocol: string;
  browser?: boolean;
  file?: string;
}

export interface Me {
  person: string;
  title?: string;
  admin?: boolean;
  password?: boolean;
  passkeys?: number;
}

/** kinds are those that these pages follow. */
export const kinds: Kind[] = ["Desktop", "Session", "Application", "Context", "Blueprint", "Image", "Machine"];
