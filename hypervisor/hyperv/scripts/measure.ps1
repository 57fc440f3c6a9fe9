# consort hyper-v protocol 1: measure

# measure returns what a running machine has used since its power-on. What the
# host does not tell is -1. The hypervisor counts a virtual processor's time in
# units of 100 ns, under the machine's name.
function Invoke-Request($a) {
    $vm = Get-Machine $a.id
    if (@('Running', 'Paused') -cnotcontains [string]$vm.State) { Stop-With 'conflict' ('machine {0} is off; start it first' -f $a.id) }
    $use = @{ cpu = [long]-1; memory = [long]$vm.MemoryAssigned; read = [long]-1; written = [long]-1; received = [long]-1; sent = [long]-1 }
    $prefix = '{0}:Hv VP ' -f $vm.Name
    $processors = @(Get-CimInstance -ClassName Win32_PerfRawData_HvStats_HyperVHypervisorVirtualProcessor -ErrorAction SilentlyContinue |
        Where-Object { $_.Name.StartsWith($prefix, [StringComparison]::OrdinalIgnoreCase) })
    if ($processors.Count -gt 0) { $use.cpu = [long](($processors | Measure-Object -Property PercentTotalRunTime -Sum).Sum * 100) }
    if ($vm.ResourceMeteringEnabled) {
        $meter = Measure-VM -VM $vm
        $use.read = [long]$meter.AggregatedDiskDataRead * 1MB
        $use.written = [long]$meter.AggregatedDiskDataWritten * 1MB
        $traffic = @($meter.NetworkMeteredTrafficReport | Where-Object { $_ })
        $use.received = [long]0
        $use.sent = [long]0
        foreach ($report in $traffic) {
            if ([string]$report.Direction -eq 'Inbound') { $use.received += [long]$report.TotalTraffic * 1MB }
            else { $use.sent += [long]$report.TotalTraffic * 1MB }
        }
    }
    $use
}
