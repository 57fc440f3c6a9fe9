// The words of the API that these pages use, from its document. Whoever reads
// a status minds that all of it may be absent: the plane writes it later.
import type { components } from "./api.gen";

type Schemas = components["schemas"];

export type Desktop = Schemas["Desktop"];
export type Pool = Schemas["Pool"];
export type Session = Schemas["Session"];
export type Application = Schemas["Application"];
export type Context = Schemas["Context"];
export type Blueprint = Schemas["Blueprint"];
export type Image = Schemas["Image"];
export type Machine = Schemas["Machine"];
export type Hypervisor = Schemas["Hypervisor"];
export type CapabilityReport = Schemas["CapabilityReport"];
export type Found = Schemas["Found"];
export type Operation = Schemas["Operation"];
export type DiskCopy = Schemas["DiskCopy"];
export type MoveReply = Schemas["MoveReply"];
export type DrainReply = Schemas["DrainReply"];
export type Trial = Schemas["Trial"];
export type Project = Schemas["Project"];
export type Me = Schemas["Me"];
export type Ticket = Schemas["Ticket"];
export type Problem = Schemas["Problem"];
export type FieldProblem = Schemas["FieldProblem"];
export type Plan = Schemas["Plan"];
export type Phase = Schemas["Phase"];
export type Work = Schemas["Work"];
export type Clipboard = Schemas["Clipboard"];
export type Files = Schemas["Files"];

export type Resource = Desktop | Pool | Session | Application | Context | Blueprint | Image | Machine | Hypervisor | Operation | Trial | Project;
export type Kind = Resource["kind"];
export type Of<K extends Kind> = Extract<Resource, { kind: K }>;

/** WatchEvent is one line of a watch. */
export interface WatchEvent {
  type: "put" | "deleted" | "bookmark";
  version: number;
  object?: Resource;
}

/** kinds are those that every page follows. Trials are many, and followed by the page that shows them. */
export const kinds: Kind[] = [
  "Desktop", "Pool", "Session", "Application", "Context", "Blueprint", "Image", "Machine", "Hypervisor", "Operation", "Project",
];
