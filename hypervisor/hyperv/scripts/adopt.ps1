# consort hyper-v protocol 1: adopt

# adopt marks a virtual machine of others as ours; its guest sees nothing of it.
function Invoke-Request($a) {
    Enter-Turn $a.id
    if ($null -ne (Find-Machine $a.id)) { return @{} }
    $vm = Get-VM | Where-Object { ([string]$_.Id).ToLowerInvariant() -ceq $a.id } | Select-Object -First 1
    if ($null -eq $vm) { Stop-With 'not-found' ('no machine {0}' -f $a.id) }
    $folder = Get-MachineFolder $a.id
    New-Item -ItemType Directory -Force -Path $folder | Out-Null
    Write-Whole (Join-Path $folder 'machine.json') $a.record
    $lines = @($vm.Notes -split '\r?\n' | Where-Object { $_ -ne '' }) + ('consort-machine: {0}' -f $a.id)
    Set-VM -VM $vm -Notes ($lines -join [Environment]::NewLine)
    @{}
}
