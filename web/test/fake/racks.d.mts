export function racks(): any[];
export function onTheWay(): any[];
export function trials(): any[];
export function ago(seconds: number): string;
export function journal(name: string, on: string, from: string, to: string, status: object, spec?: object): any;
