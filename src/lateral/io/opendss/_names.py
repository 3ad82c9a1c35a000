"""Names that the OpenDSS engine knows: commands, options and the properties of each class, in its order.

Taken from DSS C-API 0.14.5 (OpenDSS SVN 3723). The order matters twice: a value without a name belongs to
the property after the last one, and an abbreviation means the first name that begins with it.
"""

from __future__ import annotations

# ruff: noqa: SIM905

COMMANDS: tuple[str, ...] = tuple(
    """
    New Edit More M ~ Select Save Show Solve Enable Disable Plot Reset Compile Set Dump Open Close
    // Redirect Help Quit ? Next Panel Sample Clear About Calcvoltagebases SetkVBase BuildY Get Init
    Export Fileedit Voltages Currents Powers Seqvoltages Seqcurrents Seqpowers Losses Phaselosses
    Cktlosses Allocateloads Formedit Totals Capacity Classes Userclasses Zsc Zsc10 ZscRefresh Ysc
    puvoltages VarValues Varnames Buscoords MakeBusList MakePosSeq Reduce Interpolate AlignFile TOP
    Rotate Vdiff Summary Distribute DI_plot Comparecases YearlyCurves CD Visualize CloseDI DOScmd
    Estimate Reconductor _InitSnap _SolveNoControl _SampleControls _DoControlActions
    _ShowControlQueue _SolveDirect _SolvePFlow AddBusMarker Uuids SetLoadAndGenKV CvrtLoadshapes
    NodeDiff Rephase SetBusXY UpdateStorage Obfuscate LatLongCoords BatchEdit Pstcalc Variable
    ReprocessBuses ClearBusMarkers RelCalc var Cleanup FinishTimeStep NodeList Connect Disconnect
    Remove CalcIncMatrix CalcIncMatrix_O Refine_BusLevels CalcLaplacian ExportOverloads
    ExportVViolations Zsc012 AllPCEatBus AllPDEatBus TotalPowers GISCoords ClearAll COMHelp NewActor
    Wait SolveAll Abort Clone
    """.split()
)

OPTIONS: tuple[str, ...] = tuple(
    """
    type element hour sec year frequency stepsize mode random number time class object circuit
    editor tolerance maxiterations h Loadmodel Loadmult normvminpu normvmaxpu emergvminpu
    emergvmaxpu %mean %stddev LDCurve %growth Genkw Genpf CapkVAR Addtype Allowduplicates Zonelock
    UEweight Lossweight UEregs Lossregs Voltagebases Algorithm Trapezoidal Autobuslist Controlmode
    Tracecontrol Genmult Defaultdaily Defaultyearly Allocationfactors Cktmodel Pricesignal
    Pricecurve Terminal Basefrequency Harmonics Maxcontroliter Bus Datapath KeepList ReduceOption
    DemandInterval %Normal DIVerbose Casename Markercode Nodewidth Log Recorder Overloadreport
    Voltexceptionreport Cfactors ShowExport Numallociterations DefaultBaseFrequency Markswitches
    Switchmarkercode Daisysize Marktransformers TransMarkerCode TransMarkerSize LoadShapeClass
    EarthModel QueryLog MarkCapacitors MarkRegulators MarkPVSystems MarkStorage CapMarkerCode
    RegMarkerCode PVMarkerCode StoreMarkerCode CapMarkerSize RegMarkerSize PVMarkerSize
    StoreMarkerSize NeglectLoadY MarkFuses FuseMarkerCode FuseMarkerSize MarkReclosers
    RecloserMarkerCode RecloserMarkerSize RegistryUpdate MarkRelays RelayMarkerCode RelayMarkerSize
    ProcessTime TotalTime StepTime SampleEnergyMeters MinIterations DSSVisualizationTool KeepLoad
    Zmag SeasonRating SeasonSignal LineTypes EventLogDefault LongLineCorrection ShowReports NumCPUs
    NumCores NumActors ActiveActor CPU ActorProgress Parallel ConcatenateReports NUMANodes
    """.split()
)

_PROPERTIES = """
LineCode: NPhases R1 X1 R0 X0 C1 C0 Units RMatrix XMatrix CMatrix BaseFreq NormAmps EmergAmps
    FaultRate PctPerm Repair Kron Rg Xg rho Neutral B1 B0 Seasons Ratings LineType Like
LoadShape: NPts Interval Mult Hour Mean StdDev CSVFile SngFile DblFile Action QMult UseActual PMax
    QMax SInterval MInterval PBase QBase PMult PQCSVFile MemoryMapping Interpolation Like
TShape: NPts Interval Temp Hour Mean StdDev CSVFile SngFile DblFile SInterval MInterval Action Like
PriceShape: NPts Interval Price Hour Mean StdDev CSVFile SngFile DblFile SInterval MInterval Action
    Like
XYcurve: NPts Points YArray XArray CSVFile SngFile DblFile X Y XShift YShift XScale YScale Like
GrowthShape: NPts Year Mult CSVFile SngFile DblFile Like
TCC_Curve: NPts C_Array T_Array Like
Spectrum: NumHarm Harmonic %Mag Angle CSVFile Like
WireData: RDC RAC RUnits GMRAC GMRUnits Radius RadUnits NormAmps EmergAmps Diam Seasons Ratings
    CapRadius Like
CNData: k DiaStrand GMRStrand RStrand EpsR InsLayer DiaIns DiaCable RDC RAC RUnits GMRAC GMRUnits
    Radius RadUnits NormAmps EmergAmps Diam Seasons Ratings CapRadius Like
TSData: DiaShield TapeLayer TapeLap EpsR InsLayer DiaIns DiaCable RDC RAC RUnits GMRAC GMRUnits
    Radius RadUnits NormAmps EmergAmps Diam Seasons Ratings CapRadius Like
LineSpacing: NConds NPhases X H Units Like
LineGeometry: NConds NPhases Cond Wire X H Units NormAmps EmergAmps Reduce Spacing Wires CNCable
    TSCable CNCables TSCables Seasons Ratings LineType Like
XfmrCode: Phases Windings Wdg Conn kV kVA Tap %R RNeut XNeut Conns kVs kVAs Taps XHL XHT XLT
    XSCArray Thermal n m FLRise HSRise %LoadLoss %NoLoadLoss NormHkVA EmergHkVA MaxTap MinTap
    NumTaps %IMag ppm_Antifloat %Rs X12 X13 X23 RDCOhms Seasons Ratings Like
Line: Bus1 Bus2 LineCode Length Phases R1 X1 R0 X0 C1 C0 RMatrix XMatrix CMatrix Switch Rg Xg rho
    Geometry Units Spacing Wires EarthModel CNCables TSCables B1 B0 Seasons Ratings LineType
    NormAmps EmergAmps FaultRate pctPerm Repair BaseFreq Enabled Like
Vsource: Bus1 BasekV pu Angle Frequency Phases MVASC3 MVASC1 X1R1 X0R0 Isc3 Isc1 R1 X1 R0 X0
    ScanType Sequence Bus2 Z1 Z0 Z2 puZ1 puZ0 puZ2 BaseMVA Yearly Daily Duty Model puZIdeal Spectrum
    BaseFreq Enabled Like
Isource: Bus1 Amps Angle Frequency Phases ScanType Sequence Yearly Daily Duty Bus2 Spectrum BaseFreq
    Enabled Like
VCCS: Bus1 Phases PRated VRated Ppct BP1 BP2 Filter FSample RMSMode IMaxpu VRMSTau IRMSTau Spectrum
    BaseFreq Enabled Like
Load: Phases Bus1 kV kW PF Model Yearly Daily Duty Growth Conn kvar RNeut XNeut Status Class VMinpu
    VMaxpu VMinNorm VMinEmerg XfkVA AllocationFactor kVA %Mean %StdDev CVRWatts CVRVars kWh kWhDays
    CFactor CVRCurve NumCust ZIPV %SeriesRL RelWeight VLowpu puXHarm XRHarm Spectrum BaseFreq
    Enabled Like
Transformer: Phases Windings Wdg Bus Conn kV kVA Tap %R RNeut XNeut Buses Conns kVs kVAs Taps XHL
    XHT XLT XSCArray Thermal n m FLRise HSRise %LoadLoss %NoLoadLoss NormHkVA EmergHkVA Sub MaxTap
    MinTap NumTaps SubName %IMag ppm_Antifloat %Rs Bank XfmrCode XRConst X12 X13 X23 LeadLag
    WdgCurrents Core RDCOhms Seasons Ratings NormAmps EmergAmps FaultRate pctPerm Repair BaseFreq
    Enabled Like
RegControl: Transformer Winding VReg Band PTRatio CTPrim R X Bus Delay Reversible RevVReg RevBand
    RevR RevX TapDelay DebugTrace MaxTapChange InverseTime TapWinding VLimit PTPhase RevThreshold
    RevDelay RevNeutral EventLog RemotePTRatio TapNum Reset LDC_Z Rev_Z Cogen BaseFreq Enabled Like
Capacitor: Bus1 Bus2 Phases kvar kV Conn CMatrix Cuf R XL Harm NumSteps States NormAmps EmergAmps
    FaultRate pctPerm Repair BaseFreq Enabled Like
Reactor: Bus1 Bus2 Phases kvar kV Conn RMatrix XMatrix Parallel R X Rp Z1 Z2 Z0 Z RCurve LCurve LmH
    NormAmps EmergAmps FaultRate pctPerm Repair BaseFreq Enabled Like
CapControl: Element Terminal Capacitor Type PTRatio CTRatio OnSetting OffSetting Delay VoltOverride
    VMax VMin DelayOff DeadTime CTPhase PTPhase VBus EventLog UserModel UserData pctMinkvar Reset
    ControlSignal BaseFreq Enabled Like
Fault: Bus1 Bus2 Phases R %StdDev GMatrix OnTime Temporary MinAmps NormAmps EmergAmps FaultRate
    pctPerm Repair BaseFreq Enabled Like
DynamicExp: NVariables VarNames Var VarIdx Expression Domain Like
Generator: Phases Bus1 kV kW PF kvar Model VMinpu VMaxpu Yearly Daily Duty DispMode DispValue Conn
    Status Class Vpu Maxkvar Minkvar PVFactor ForceOn kVA MVA Xd Xdp Xdpp H D UserModel UserData
    ShaftModel ShaftData DutyStart DebugTrace Balanced XRdp UseFuel FuelkWh %Fuel %Reserve Refuel
    DynamicEq DynOut Spectrum BaseFreq Enabled Like
GenDispatcher: Element Terminal kWLimit kWBand kvarLimit GenList Weights BaseFreq Enabled Like
Storage: Phases Bus1 kV Conn kW kvar PF kVA %CutIn %CutOut EffCurve VarFollowInverter kvarMax
    kvarMaxAbs WattPriority PFPriority %PMinNoVars %PMinkvarMax kWRated %kWRated kWhRated kWhStored
    %Stored %Reserve State %Discharge %Charge %EffCharge %EffDischarge %IdlingkW %Idlingkvar %R %X
    Model VMinpu VMaxpu Balanced LimitCurrent Yearly Daily Duty DispMode DischargeTrigger
    ChargeTrigger TimeChargeTrig Class DynaDLL DynaData UserModel UserData DebugTrace kVDC Kp PITol
    SafeVoltage SafeMode DynamicEq DynOut ControlMode AmpLimit AmpLimitGain Spectrum BaseFreq
    Enabled Like
StorageController: Element Terminal MonPhase kWTarget kWTargetLow %kWBand kWBand %kWBandLow
    kWBandLow ElementList Weights ModeDischarge ModeCharge TimeDischargeTrigger TimeChargeTrigger
    %RatekW %RateCharge %Reserve kWhTotal kWTotal kWhActual kWActual kWNeed Yearly Daily Duty
    EventLog InhibitTime TUp TFlat TDn kWThreshold DispFactor ResetLevel Seasons SeasonTargets
    SeasonTargetsLow BaseFreq Enabled Like
Relay: MonitoredObj MonitoredTerm SwitchedObj SwitchedTerm Type PhaseCurve GroundCurve PhaseTrip
    GroundTrip TDPhase TDGround PhaseInst GroundInst Reset Shots RecloseIntervals Delay
    OvervoltCurve UndervoltCurve kVBase 47%Pickup 46BaseAmps 46%Pickup 46isqt Variable Overtrip
    Undertrip BreakerTime Action Z1Mag Z1Ang Z0Mag Z0Ang MPhase MGround EventLog DebugTrace
    DistReverse Normal State DOC_TiltAngleLow DOC_TiltAngleHigh DOC_TripSettingLow
    DOC_TripSettingHigh DOC_TripSettingMag DOC_DelayInner DOC_PhaseCurveInner DOC_PhaseTripInner
    DOC_TDPhaseInner DOC_P1Blocking BaseFreq Enabled Like
Recloser: MonitoredObj MonitoredTerm SwitchedObj SwitchedTerm NumFast PhaseFast PhaseDelayed
    GroundFast GroundDelayed PhaseTrip GroundTrip PhaseInst GroundInst Reset Shots RecloseIntervals
    Delay Action TDPhFast TDGrFast TDPhDelayed TDGrDelayed Normal State BaseFreq Enabled Like
Fuse: MonitoredObj MonitoredTerm SwitchedObj SwitchedTerm FuseCurve RatedCurrent Delay Action Normal
    State BaseFreq Enabled Like
SwtControl: SwitchedObj SwitchedTerm Action Lock Delay Normal State Reset BaseFreq Enabled Like
PVSystem: Phases Bus1 kV Irradiance Pmpp %Pmpp Temperature PF Conn kvar kVA %CutIn %CutOut EffCurve
    P-TCurve %R %X Model VMinpu VMaxpu Balanced LimitCurrent Yearly Daily Duty TYearly TDaily TDuty
    Class UserModel UserData DebugTrace VarFollowInverter DutyStart WattPriority PFPriority
    %PMinNoVars %PMinkvarMax kvarMax kvarMaxAbs kVDC Kp PITol SafeVoltage SafeMode DynamicEq DynOut
    ControlMode AmpLimit AmpLimitGain Spectrum BaseFreq Enabled Like
UPFC: Bus1 Bus2 RefkV PF Frequency Phases Xs Tol1 Mode VpqMax LossCurve VHLimit VLLimit CLimit
    refkV2 kvarLimit Element Spectrum BaseFreq Enabled Like
UPFCControl: UPFCList BaseFreq Enabled Like
ESPVLControl: Element Terminal Type kWBand kvarLimit LocalControlList LocalControlWeights
    PVSystemList PVSystemWeights StorageList StorageWeights BaseFreq Enabled Like
IndMach012: Phases Bus1 kV kW PF Conn kVA H D puRs puXs puRr puXr puXm Slip MaxSlip SlipOption
    Yearly Daily Duty DebugTrace Spectrum BaseFreq Enabled Like
GICsource: Volts Angle Frequency Phases EN EE Lat1 Lon1 Lat2 Lon2 Spectrum BaseFreq Enabled Like
AutoTrans: Phases Windings Wdg Bus Conn kV kVA Tap %R RDCOhms Core Buses Conns kVs kVAs Taps XHX XHT
    XXT XSCArray Thermal n m FLRise HSRise %LoadLoss %NoLoadLoss NormHkVA EmergHkVA Sub MaxTap
    MinTap NumTaps SubName %IMag ppm_Antifloat %Rs Bank XRConst LeadLag WdgCurrents NormAmps
    EmergAmps FaultRate pctPerm Repair BaseFreq Enabled Like
InvControl: DERList Mode CombiMode VVC_Curve1 Hysteresis_Offset Voltage_CurveX_Ref AvgWindowLen
    VoltWatt_Curve DbVMin DbVMax ArGraLowV ArGraHiV DynReacAvgWindowLen DeltaQ_Factor
    VoltageChangeTolerance VarChangeTolerance VoltWattYAxis RateOfChangeMode LPFTau RiseFallLimit
    DeltaP_Factor EventLog RefReactivePower ActivePChangeTolerance MonVoltageCalc MonBus
    MonBusesVBase VoltWattCH_Curve WattPF_Curve WattVar_Curve VV_RefReactivePower PVSystemList
    VSetPoint ControlModel BaseFreq Enabled Like
ExpControl: PVSystemList VReg Slope VRegTau QBias VRegMin VRegMax QMaxLead QMaxLag EventLog
    DeltaQ_Factor PreferQ TResponse DERList BaseFreq Enabled Like
GICLine: Bus1 Bus2 Volts Angle Frequency Phases R X C EN EE Lat1 Lon1 Lat2 Lon2 Spectrum BaseFreq
    Enabled Like
GICTransformer: BusH BusNH BusX BusNX Phases Type R1 R2 kVLL1 kVLL2 MVA VarCurve %R1 %R2 K NormAmps
    EmergAmps FaultRate pctPerm Repair BaseFreq Enabled Like
VSConverter: Phases Bus1 kVAC kVDC kW NDC RAC XAC M0 d0 MMin MMax IACMax IDCMax VACRef PACRef QACRef
    VDCRef VSCMode Spectrum BaseFreq Enabled Like
Monitor: Element Terminal Mode Action Residual VIPolar PPolar BaseFreq Enabled Like
EnergyMeter: Element Terminal Action Option kVANormal kVAEmerg PeakCurrent ZoneList LocalOnly Mask
    Losses LineLosses XfmrLosses SeqLosses 3PhaseLosses VBaseLosses PhaseVoltageReport Int_Rate
    Int_Duration SAIFI SAIFIkW SAIDI CAIDI CustInterrupts BaseFreq Enabled Like
Sensor: Element Terminal kVBase Clear kVs Currents kWs kvars Conn DeltaDirection %Error Weight
    BaseFreq Enabled Like
"""


def _read_table(text: str) -> dict[str, tuple[str, ...]]:
    """``Class: Property Property ...`` blocks; a continued line is indented."""
    table: dict[str, tuple[str, ...]] = {}
    for block in text.strip().replace("\n    ", " ").splitlines():
        name, _, properties = block.partition(":")
        table[name] = tuple(properties.split())
    return table


PROPERTIES: dict[str, tuple[str, ...]] = _read_table(_PROPERTIES)
