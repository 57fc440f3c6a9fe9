export function pool(name: string, title: string, status: { warm: number; queue: number }): any;
