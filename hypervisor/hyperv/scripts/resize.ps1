# consort hyper-v protocol 1: resize

# resize gives a machine that is off other CPUs and memory, then records it.
function Invoke-Request($a) {
    Enter-Turn $a.id
    $vm = Get-Resting $a.id
    Clear-Saved $vm
    Set-VMProcessor -VM $vm -Count $a.cpus
    Set-VMMemory -VM $vm -StartupBytes $a.memory
    Write-Whole (Join-Path (Get-MachineFolder $a.id) 'machine.json') $a.record
    @{}
}
